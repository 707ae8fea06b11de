//! A judge of one's own: `own-judge DIR` rates all answers in a folder of FastChat's layout and prints the scores.
//!
//! The judge is a rule here. A model of your own takes its place: `Judge::judge` gets the rendered prompt, too.

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use mtbench::{
    BenchDir, FixedStamp, Judge, JudgePrompts, JudgeRequest, Jury, Mode, Resampling, Scores, SingleGrading,
    score_table,
};
use report::table::Format;
use seeds::Seeds;

type Failure = Box<dyn Error + Send + Sync>;

/// Rates brevity: 10 for at most 20 words, and a point less for each further 20.
struct Brevity;

impl Judge for Brevity {
    fn name(&self) -> &str {
        "brevity"
    }

    /// Returns a text as a model would write it; `Rating: [[7]]` is what counts.
    fn judge(&self, request: &JudgeRequest<'_>) -> Result<String, Failure> {
        let answer = request.answers.last().map_or("", String::as_str);
        let words = answer.split_whitespace().count();
        let rating = 10_usize.saturating_sub(words.saturating_sub(1) / 20).max(1);
        Ok(format!("The answer has {words} words. Rating: [[{rating}]]"))
    }
}

/// Judges every answer that has no judgment yet, and returns the scores as a table.
fn judge_all(bench: &BenchDir, judge: &dyn Judge) -> Result<String, Failure> {
    let (questions, models) = (bench.questions()?, bench.models()?);
    let mut answers = Vec::new();
    for model in &models {
        answers.extend(bench.answers(model)?);
    }
    let grading =
        SingleGrading { questions: &questions, prompts: &JudgePrompts::fastchat(), references: &[] };
    let jury = Jury { judge, mode: Mode::Strict, repeats: 1, reasks: 0 };
    let tstamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut stamp = FixedStamp { prefix: judge.name().to_owned(), tstamp };
    jury.single(bench, &grading, &answers, &mut stamp, &mut |_| {})?;

    let judgments = bench.judgments(judge.name())?;
    let scores = |model: String| {
        let scores = Scores::new(&questions, &judgments, &model, Mode::Strict);
        (model, scores)
    };
    let scores: Vec<_> = models.into_iter().map(scores).collect();
    let resampling = Resampling::new(Seeds::new(0));
    Ok(score_table(&scores, judge.name(), Mode::Strict, &resampling)?.render(Format::Text))
}

#[expect(clippy::print_stdout, reason = "the result of a program")]
fn main() -> Result<(), Failure> {
    let folder =
        std::env::args_os().nth(1).ok_or("name the benchmark's folder, as FastChat's data/mt_bench")?;
    println!("{}", judge_all(&BenchDir::new(std::path::PathBuf::from(folder)), &Brevity)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use mtbench::{Conversation, Question, Responder, answer_questions};

    use super::*;

    /// Answers each question with so many words.
    struct Wordy(usize);

    impl Responder for Wordy {
        fn respond(&mut self, conversations: &[Conversation<'_>]) -> Result<Vec<String>, Failure> {
            Ok(conversations.iter().map(|_| "word ".repeat(self.0)).collect())
        }
    }

    #[test]
    fn short_answers_win_and_judgments_are_on_file() {
        let folder = tempfile::tempdir().unwrap();
        let bench = BenchDir::new(folder.path());
        let question = |question_id: u64| Question {
            question_id,
            category: "writing".to_owned(),
            turns: vec!["Write a poem.".to_owned(), "Now without rhymes.".to_owned()],
            reference: None,
            required_temperature: None,
        };
        let questions: Vec<Question> = (81..85).map(question).collect();
        bench.write_questions(&questions).unwrap();
        for (model, words) in [("brief", 20), ("long", 60)] {
            let mut stamp = FixedStamp { prefix: model.to_owned(), tstamp: 0.0 };
            let answers = answer_questions(&questions, model, &mut Wordy(words), &mut stamp, &[]).unwrap();
            bench.write_answers(model, &answers).unwrap();
        }
        let table = judge_all(&bench, &Brevity).unwrap();
        assert!(table.find("brief") < table.find("long"), "{table}");
        assert!(table.contains("10.00") && table.contains("8.00"), "{table}");
        assert_eq!(
            bench.judgments("brevity").unwrap().len(),
            2 * 4 * 2,
            "two models, four questions, two turns"
        );
        assert_eq!(judge_all(&bench, &Brevity).unwrap(), table, "nothing is judged twice");
    }
}
