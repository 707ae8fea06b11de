//! Tables 6 and 7 as the paper prints them.
//!
//! Two rows of Table 6 are broken in print: the numbers 1 and 53 stand a line above `note_summarization` and
//! `question_generation`, and `writing_news_article` stands a line below its own. They are read so here, and six of
//! Table 7's eight sums come out.

use super::Category::{self, Coding, Extraction, Humanities, Math, Reasoning, Roleplay, Stem, Writing};

/// A row of Table 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// GAIR's name for it, `scenario_auto-j`.
    pub name: &'static str,
    /// MT-Bench's categories that it falls into; none for `default`.
    pub categories: &'static [Category],
    /// How many of GAIR's pairs the paper counts.
    pub pairs: usize,
}

/// Table 6: what GAIR's scenarios are to MT-Bench.
pub const TABLE_6: [Scenario; 55] = [
    row("analyzing_general", &[Reasoning, Extraction, Writing, Roleplay], 16),
    row("chitchat", &[Roleplay], 239),
    row("code_correction_rewriting", &[Coding], 235),
    row("code_simplification", &[Coding], 1),
    row("counterfactual", &[Reasoning], 52),
    row("explaining_code", &[Coding], 29),
    row("information_extraction", &[Extraction], 30),
    row("keywords_extraction", &[Extraction], 3),
    row("note_summarization", &[Extraction], 1),
    row("question_generation", &[Reasoning], 53),
    row("recommendation", &[Reasoning], 45),
    row("solving_exam_question_with_math", &[Math], 27),
    row("solving_exam_question_without_math", &[Stem, Humanities], 39),
    row("text_simplification", &[Writing], 7),
    row("text_to_text_translation", &[Writing], 43),
    row("verifying_fact", &[Extraction], 57),
    row("writing_cooking_recipe", &[Writing], 47),
    row("writing_job_application", &[Writing], 23),
    row("writing_marketing_materials", &[Writing], 2),
    row("writing_personal_essay", &[Writing], 29),
    row("writing_product_description", &[Writing], 21),
    row("writing_social_media_post", &[Writing], 10),
    row("writing_technical_document", &[Writing], 13),
    row("creative_writing", &[Writing], 275),
    row("instructional_rewriting", &[Writing], 25),
    row("language_polishing", &[Writing], 12),
    row("open_question", &[Writing], 395),
    row("text_correction", &[Writing], 14),
    row("title_generation", &[Writing], 10),
    row("writing_advertisement", &[Writing], 5),
    row("writing_email", &[Writing], 79),
    row("writing_legal_document", &[Writing], 17),
    row("writing_news_article", &[Writing], 5),
    row("writing_presentation_script", &[Writing], 12),
    row("writing_scientific_paper", &[Writing], 6),
    row("writing_song_lyrics", &[Writing], 41),
    row("functional_writing", &[Writing], 195),
    row("paraphrasing", &[Writing], 22),
    row("writing_blog_post", &[Writing], 12),
    row("asking_how_to_question", &[Reasoning], 100),
    row("classification_identification", &[Extraction], 28),
    row("code_generation", &[Coding], 341),
    row("code_to_code_translation", &[Coding], 6),
    row("explaining_general", &[Reasoning], 385),
    row("ranking", &[Reasoning], 39),
    row("text_summarization", &[Extraction], 93),
    row("brainstorming", &[Reasoning], 165),
    row("data_analysis", &[Math], 19),
    row("math_reasoning", &[Math, Reasoning], 334),
    row("reading_comprehension", &[Reasoning], 13),
    row("roleplay", &[Roleplay], 131),
    row("value_judgement", &[Humanities], 172),
    row("default", &[], 865),
    row("planning", &[Reasoning], 75),
    row("seeking_advice", &[Roleplay], 323),
];

/// Table 7: how many of GAIR's pairs fall into each of MT-Bench's categories.
pub const TABLE_7: [(Category, usize); 8] = [
    (Writing, 1336),
    (Reasoning, 1277),
    (Roleplay, 924),
    (Coding, 401),
    (Math, 380),
    (Extraction, 228),
    (Humanities, 211),
    (Stem, 39),
];

const fn row(name: &'static str, categories: &'static [Category], pairs: usize) -> Scenario {
    Scenario { name, categories, pairs }
}
