//! Candidate responses: prompts, the answers of several policies, and records of both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use llm_client::ChatMessage;
use pref_data::{Message, PreferenceRecord, Text};
use rand::seq::SliceRandom as _;
use seeds::Seeds;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::AnnotateError;

/// A prompt that policies answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompt {
    /// Identifies the prompt within its file.
    pub id: String,
    /// The text or the conversation.
    pub text: Text,
}

/// A row of a file of prompts.
#[derive(Deserialize)]
struct PromptRow {
    #[serde(default)]
    id: Option<Value>,
    prompt: Text,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// The prompts of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    /// The prompts, in their order.
    pub prompts: Vec<Prompt>,
    /// Fields that the rows have besides `id` and `prompt`, and that are not used.
    pub unused: BTreeSet<String>,
}

/// Fields of a row without which a model would see another prompt.
const PARTS_OF_PROMPTS: [&str; 4] = ["system", "tools", "documents", "chat_template_kwargs"];

/// One answer of a policy: a line of a log of samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// The prompt's id.
    pub id: String,
    /// The digest of the prompt, which shows that it did not change.
    pub digest: String,
    /// The policy.
    pub policy: String,
    /// The number of the answer among those of the policy to this prompt, from 0.
    pub sample: u32,
    /// The answer.
    pub text: String,
}

/// The sources of a record's responses, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The record's id.
    pub id: String,
    /// The policy of each response, and the number of its answer.
    pub sources: Vec<(String, u32)>,
}

/// Records without labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// A record for each prompt with two different answers or more.
    pub records: Vec<PreferenceRecord>,
    /// The sources of each record's responses.
    pub sources: Vec<Sources>,
    /// Empty answers, which are left out.
    pub empty: usize,
    /// Answers that equal another answer to the same prompt, which are left out.
    pub repeated: usize,
    /// Prompts with fewer than two different answers, which are left out.
    pub too_few: usize,
}

/// A prompt as turns that end with the user's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialogue {
    /// The system message.
    pub system: Option<String>,
    /// The user's messages.
    pub user: Vec<String>,
    /// The model's messages: one fewer than `user`.
    pub assistant: Vec<String>,
}

impl Dialogue {
    /// Returns the messages for an endpoint.
    pub fn messages(&self) -> Vec<ChatMessage> {
        let mut messages: Vec<ChatMessage> = self.system.iter().map(ChatMessage::system).collect();
        for (turn, user) in self.user.iter().enumerate() {
            messages.push(ChatMessage::user(user));
            messages.extend(self.assistant.get(turn).map(ChatMessage::assistant));
        }
        messages
    }
}

impl Prompt {
    /// Returns the prompt's turns.
    ///
    /// # Errors
    ///
    /// [`AnnotateError::NotADialogue`] unless user and assistant alternate, after at most one system message, and the user
    /// has the last turn. [`AnnotateError::PartOfPrompt`] for a message with more than a role and a text, such as a call of a
    /// tool.
    pub fn dialogue(&self) -> Result<Dialogue, AnnotateError> {
        let messages = match &self.text {
            Text::Plain(text) => {
                return Ok(Dialogue { user: vec![text.clone()], ..Dialogue::default() });
            }
            Text::Chat(messages) => messages,
        };
        let mut dialogue = Dialogue::default();
        for (at, message) in messages.iter().enumerate() {
            let (user, assistant) = (dialogue.user.len(), dialogue.assistant.len());
            let content = message.plain_content().ok_or_else(|| AnnotateError::PartOfPrompt {
                id: self.id.clone(),
                part: "a message with more than a role and a text".to_owned(),
            })?;
            let content = content.to_owned();
            match message.role() {
                "system" if at == 0 => dialogue.system = Some(content),
                "user" if user == assistant => dialogue.user.push(content),
                "assistant" if user == assistant + 1 => dialogue.assistant.push(content),
                _ => return Err(AnnotateError::NotADialogue { id: self.id.clone() }),
            }
        }
        if dialogue.user.len() == dialogue.assistant.len() + 1 {
            Ok(dialogue)
        } else {
            Err(AnnotateError::NotADialogue { id: self.id.clone() })
        }
    }

    /// Returns the digest of the prompt's text.
    pub fn digest(&self) -> String {
        digest(&self.text)
    }

    /// Reads a file of JSON lines with a field `prompt`, a text or a list of messages, and optionally `id`. Without one, the
    /// id is the number of the line.
    ///
    /// # Errors
    ///
    /// [`AnnotateError::Prompts`] for lines that are no prompts, [`AnnotateError::PartOfPrompt`] for rows with tools,
    /// documents, a system message or variables of the template, and [`AnnotateError::RepeatedId`].
    pub fn read(path: &Path) -> Result<Prompts, AnnotateError> {
        let rows: Vec<PromptRow> = files::json_lines::read(path).map_err(AnnotateError::Prompts)?;
        let (mut seen, mut unused) = (BTreeSet::new(), BTreeSet::new());
        let prompts = (1_usize..).zip(rows).map(|(number, row)| {
            let id = match row.id {
                Some(Value::String(id)) => id,
                Some(Value::Null) | None => number.to_string(),
                Some(other) => other.to_string(),
            };
            if !seen.insert(id.clone()) {
                return Err(AnnotateError::RepeatedId { id, what: "prompts" });
            }
            if let Some(part) = PARTS_OF_PROMPTS.into_iter().find(|part| row.other.contains_key(*part)) {
                return Err(AnnotateError::PartOfPrompt { id, part: format!("the field `{part}`") });
            }
            unused.extend(row.other.into_keys());
            Ok(Self { id, text: row.prompt })
        });
        let prompts = prompts.collect::<Result<_, _>>()?;
        Ok(Prompts { prompts, unused })
    }
}

/// Returns the digest of a value's JSON, in hexadecimal digits.
///
/// # Panics
///
/// If the value has no JSON form, such as a map with keys that are no texts.
pub fn digest(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).expect("the value has a JSON form");
    blake3::hash(&json).to_hex().to_string()
}

/// Returns the digest of a record's prompt and responses.
pub(crate) fn record_digest(record: &PreferenceRecord) -> String {
    digest(&(&record.prompt, &record.responses))
}

/// Makes a record of each prompt and its answers. Answers belong to prompts by id, and the digest of the prompt must agree.
///
/// The order of a record's responses is random, so that a policy has no position of its own.
///
/// # Errors
///
/// [`AnnotateError::Misaligned`] for an answer to an unknown or changed prompt, and for two answers with one number.
pub fn candidates(
    prompts: &[Prompt],
    sampled: Vec<Sampled>,
    seeds: &Seeds,
) -> Result<Candidates, AnnotateError> {
    let digests: BTreeMap<&str, String> =
        prompts.iter().map(|prompt| (prompt.id.as_str(), prompt.digest())).collect();
    let mut answers: BTreeMap<String, BTreeMap<(String, u32), String>> = BTreeMap::new();
    for Sampled { id, digest, policy, sample, text } in sampled {
        let misaligned = |problem| AnnotateError::Misaligned { id: id.clone(), problem };
        match digests.get(id.as_str()) {
            None => return Err(misaligned("has an answer and no prompt")),
            Some(known) if *known != digest => return Err(misaligned("has answers to another prompt")),
            Some(_) => {}
        }
        if answers.entry(id.clone()).or_default().insert((policy, sample), text).is_some() {
            return Err(misaligned("has two answers with the same policy and number"));
        }
    }
    let mut out = Candidates::default();
    for prompt in prompts {
        let mut kept: Vec<((String, u32), String)> = Vec::new();
        for (source, text) in answers.remove(&prompt.id).unwrap_or_default() {
            if text.trim().is_empty() {
                out.empty += 1;
            } else if kept.iter().any(|(_, other)| *other == text) {
                out.repeated += 1;
            } else {
                kept.push((source, text));
            }
        }
        if kept.len() < 2 {
            out.too_few += 1;
            continue;
        }
        kept.shuffle(&mut seeds.stream(&format!("order of {}", prompt.id)));
        let (sources, texts): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        let response = |text: String| match &prompt.text {
            Text::Plain(_) => Text::Plain(text),
            Text::Chat(_) => Text::Chat(vec![Message::assistant(text)]),
        };
        out.sources.push(Sources { id: prompt.id.clone(), sources });
        out.records.push(PreferenceRecord {
            id: prompt.id.clone(),
            prompt: prompt.text.clone(),
            responses: texts.into_iter().map(response).collect(),
            labels: BTreeMap::new(),
            domain: None,
            context: Default::default(),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(id: &str) -> Prompt {
        Prompt { id: id.to_owned(), text: Text::Plain(format!("question {id}")) }
    }

    fn answer(of: &Prompt, policy: &str, sample: u32, text: &str) -> Sampled {
        let (id, digest) = (of.id.clone(), of.digest());
        Sampled { id, digest, policy: policy.to_owned(), sample, text: text.to_owned() }
    }

    #[test]
    fn answers_belong_to_prompts_by_id_in_any_order() {
        let prompts: Vec<Prompt> = (0..40).map(|n| prompt(&n.to_string())).collect();
        let text = |prompt: &Prompt, policy: &str| format!("{policy} on {}", prompt.id);
        let of = |policy| prompts.iter().rev().map(move |p| answer(p, policy, 0, &text(p, policy)));
        let seeds = Seeds::new(3);
        let made = candidates(&prompts, of("a").chain(of("b")).collect(), &seeds).expect("aligned");
        assert_eq!(made.records.len(), 40);
        let mut a_first = 0;
        for ((record, sources), prompt) in made.records.iter().zip(&made.sources).zip(&prompts) {
            assert_eq!((&record.id, &sources.id, &record.prompt), (&prompt.id, &prompt.id, &prompt.text));
            for (response, (policy, _)) in record.responses.iter().zip(&sources.sources) {
                assert_eq!(*response, Text::Plain(text(prompt, policy)));
            }
            a_first += usize::from(sources.sources[0].0 == "a");
        }
        assert!((8..=32).contains(&a_first), "the order is random: {a_first} of 40");
        let again = candidates(&prompts, of("b").chain(of("a")).collect(), &seeds).expect("aligned");
        assert_eq!(again, made, "the order of the answers changes nothing");
    }

    #[test]
    fn empty_and_equal_answers_are_left_out() {
        let (one, two) = (prompt("1"), prompt("2"));
        let answers = vec![
            answer(&one, "a", 0, "x"),
            answer(&one, "a", 1, "x"),
            answer(&one, "b", 0, "y"),
            answer(&one, "b", 1, " \n"),
            answer(&two, "a", 0, "z"),
        ];
        let made = candidates(&[one, two], answers, &Seeds::new(0)).expect("aligned");
        assert_eq!((made.records.len(), made.records[0].responses.len()), (1, 2));
        assert_eq!((made.empty, made.repeated, made.too_few), (1, 1, 1));
    }

    #[test]
    fn misaligned_answers_are_errors() {
        let known = prompt("1");
        let changed = Prompt { text: Text::Plain("another question".to_owned()), ..known.clone() };
        for answers in [
            vec![answer(&prompt("2"), "a", 0, "x")],
            vec![answer(&changed, "a", 0, "x")],
            vec![answer(&known, "a", 0, "x"), answer(&known, "a", 0, "y")],
        ] {
            let error =
                candidates(std::slice::from_ref(&known), answers, &Seeds::new(0)).expect_err("misaligned");
            assert!(matches!(error, AnnotateError::Misaligned { .. }) && error.is_bad_input(), "{error}");
        }
    }

    #[test]
    fn a_dialogue_ends_with_the_user() {
        let chat = |roles: &str| {
            let message = |role| match role {
                's' => Message::system("be brief"),
                'u' => Message::user("hi"),
                't' => Message::new("tool", "1"),
                _ => Message::assistant("ho"),
            };
            Prompt { id: "1".to_owned(), text: Text::Chat(roles.chars().map(message).collect()) }.dialogue()
        };
        let long = chat("suau").expect("a dialogue").messages();
        assert_eq!(
            long.iter().map(|message| message.content.as_str()).collect::<Vec<_>>(),
            ["be brief", "hi", "ho", "hi"]
        );
        for bad in ["", "s", "ua", "uu", "au", "usu", "utu"] {
            assert!(matches!(chat(bad), Err(AnnotateError::NotADialogue { .. })), "{bad}");
        }
    }

    #[test]
    fn prompts_are_texts_or_conversations_with_ids_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("prompts.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Prompt::read(&path)
        };
        let file =
            "{\"prompt\": \"a\"}\n{\"id\": 7, \"prompt\": [{\"role\": \"user\", \"content\": \"b\"}]}\n";
        let Prompts { prompts, unused } = read(file).expect("two");
        assert_eq!(unused, BTreeSet::new());
        assert_eq!((prompts[0].id.as_str(), prompts[1].id.as_str()), ("1", "7"));
        assert_eq!(prompts[1].text, Text::Chat(vec![Message::user("b")]));
        let repeated = read("{\"id\": \"2\", \"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n").expect_err("two");
        assert!(repeated.to_string().contains("`2`"), "{repeated}");
        assert!(matches!(read("{\"question\": \"a\"}\n"), Err(AnnotateError::Prompts(_))));
    }

    #[test]
    fn what_policies_would_not_see_is_refused_or_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("prompts.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Prompt::read(&path)
        };
        let reported = read("{\"prompt\": \"a\", \"source\": \"x\", \"prompt_id\": 3}\n").expect("a prompt");
        assert_eq!(reported.unused, ["prompt_id", "source"].map(str::to_owned).into());
        for part in PARTS_OF_PROMPTS {
            let error = read(&format!("{{\"prompt\": \"a\", \"{part}\": []}}\n")).expect_err(part);
            assert!(error.to_string().starts_with(&format!("prompt `1` has the field `{part}`")), "{error}");
        }
        let call = r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": []},
            {"role": "user", "content": "b"}]}"#;
        let with_call = read(&call.replace('\n', " ")).expect("a prompt");
        let error = with_call.prompts[0].dialogue().expect_err("a call of a tool");
        assert!(error.to_string().contains("more than a role and a text"), "{error}");
    }
}
