//! `annotate sample`.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use annotate::{AnnotateError, Candidates, Dialogue, Prompt, Prompts, Sampled, candidates, digest};
use anyhow::{Context as _, bail};
use clap::Args;
use files::json_lines::{self, Log};
use inference::{LoadedPolicy, model_fact};
use llm_client::{ChatRequest, ChatSampling, Client, EndpointKind};
use mtbench::{Conversation, Responder as _};
use pref_data::{ChatSettings, write_records};
use seeds::Seeds;
use trainer::Progress as _;
use trainer::recipe::DeviceChoice;

use super::costs::print_costs;
use crate::call_args::CallArgs;
use crate::console::ConsoleProgress;
use crate::program::{Signals, Stopped, print_result, share};

/// Let several policies answer prompts: folders on this machine, or models behind OpenAI-compatible endpoints
///
/// Answers are kept in --work: the same command resumes. Label the candidates with `annotate llm --aspects`, and make pairs
/// with `annotate pairs`.
#[derive(Debug, Args)]
pub(super) struct SampleArgs {
    /// JSON lines with a field `prompt`, a text or a list of messages, and optionally `id`
    #[arg(value_name = "PROMPTS")]
    prompts: PathBuf,
    /// The file of records without labels (.jsonl or .jsonl.gz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The folder of answers, ledgers and the sources of all responses
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// A policy of this name in a Hugging Face folder; repeatable
    #[arg(long = "policy", value_name = "NAME=DIR", value_parser = named)]
    policies: Vec<(String, String)>,
    /// A policy of this name behind an endpoint, such as small=qwen2.5:7b@http://localhost:11434/v1; repeatable
    #[arg(long = "endpoint", value_name = "NAME=MODEL@URL", value_parser = named)]
    endpoints: Vec<(String, String)>,
    /// The answers of each policy to each prompt
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    samples: u32,
    /// The temperature of sampling
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = super::llm::lead)]
    temperature: f64,
    /// The longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_new_tokens: u32,
    /// Prompts answered at a time by a folder's policy
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..))]
    wave: u16,
    /// The seed of a folder's answers and of the order of responses
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Exit with status 1 if more than this share of an endpoint's calls failed
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = share)]
    max_failed: f64,
    #[command(flatten)]
    calls: CallArgs,
}

/// Parses `NAME=VALUE`, with a name that can be part of a file's name.
fn named(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=…"))?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) || value.is_empty() {
        return Err(format!("`{text}`: a name has letters, digits, `-`, `_` and `.`"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The answers of an endpoint.
struct Answers {
    answers: Vec<Sampled>,
    failed: usize,
}

/// A prompt with its turns.
struct Asked {
    prompt: Prompt,
    dialogue: Dialogue,
}

impl SampleArgs {
    pub(super) fn run(&self, signals: &Signals) -> anyhow::Result<()> {
        let Prompts { prompts, unused } = Prompt::read(&self.prompts)?;
        if !unused.is_empty() {
            let names: Vec<&str> = unused.iter().map(String::as_str).collect();
            tracing::warn!("the prompts have fields that are not used: {}", names.join(", "));
        }
        self.check_policies()?;
        let asked =
            prompts.iter().map(|prompt| Ok(Asked { prompt: prompt.clone(), dialogue: prompt.dialogue()? }));
        let asked = asked.collect::<Result<Vec<_>, AnnotateError>>()?;
        let (mut sampled, mut spent, mut failures) = (Vec::new(), 0.0, Vec::new());
        for (name, place) in &self.endpoints {
            let (model, url) = place.rsplit_once('@').ok_or_else(|| {
                policies(format!("--endpoint {name}={place} has no MODEL@URL after its name"))
            })?;
            let left = self.calls.max_cost.map(|limit| (limit - spent).max(0.0));
            let client = self.calls.client(url, EndpointKind::OpenAi, &self.work.join(name), left)?;
            let Answers { answers, failed } = self.sample_endpoint(name, model, &client, &asked, signals)?;
            let calls = answers.len() + failed;
            if failed as f64 > self.max_failed * calls as f64 {
                failures.push(format!("{failed} of {calls} calls to {name} failed"));
            }
            sampled.extend(answers);
            spent += client.totals().usd;
            print_costs(client.totals(), client.recovery())?;
        }
        for (name, folder) in &self.policies {
            sampled.extend(self.sample_folder(name, Path::new(folder), &asked, signals)?);
        }
        self.write(&prompts, sampled)?;
        if failures.is_empty() {
            return Ok(());
        }
        bail!("{}, more than --max-failed {}; see the warnings", failures.join("; "), self.max_failed)
    }

    fn check_policies(&self) -> Result<(), AnnotateError> {
        let mut names = BTreeSet::new();
        for (name, _) in self.endpoints.iter().chain(&self.policies) {
            if !names.insert(name) {
                return Err(policies(format!("two policies have the name {name}")));
            }
        }
        let answers = names.len() * self.samples as usize;
        if answers < 2 {
            return Err(policies(format!("{answers} answers to a prompt make no pair")));
        }
        Ok(())
    }

    fn write(&self, prompts: &[Prompt], sampled: Vec<Sampled>) -> anyhow::Result<()> {
        let made = candidates(prompts, sampled, &Seeds::new(self.seed).child("candidates"))?;
        let Candidates { records, sources, empty, repeated, too_few } = made;
        let path = self.work.join("sources.jsonl");
        json_lines::write(&path, &sources).with_context(|| format!("cannot write {}", path.display()))?;
        write_records(&self.out, &records)?;
        Ok(print_result(format_args!(
            "{} records of {} prompts; left out: {empty} empty and {repeated} equal answers, {too_few} prompts with fewer \
             than two answers",
            records.len(),
            prompts.len(),
        ))?)
    }

    /// Asks a model behind an endpoint. A failed call leaves its answer out.
    fn sample_endpoint(
        &self,
        name: &str,
        model: &str,
        client: &Client,
        asked: &[Asked],
        signals: &Signals,
    ) -> anyhow::Result<Answers> {
        let sampling =
            ChatSampling { temperature: Some(self.temperature), ..ChatSampling::greedy(self.max_new_tokens) };
        let samples = self.samples as usize;
        let job = |job: usize| {
            let request = ChatRequest {
                model: model.to_owned(),
                messages: asked[job / samples].dialogue.messages(),
                sampling: sampling.clone(),
                repeat: (job % samples) as u32,
            };
            async move { client.chat(&request).await }
        };
        let mut console = ConsoleProgress::stderr();
        console.begin(&format!("answers of {name}"), (asked.len() * samples) as u64);
        let (mut answers, mut done, mut failed, mut cut, mut fatal) = (Vec::new(), 0, 0, 0, None);
        client.run_each(asked.len() * samples, signals.stop(), job, |job, outcome| {
            done += 1;
            console.advance(done, "");
            match outcome {
                Ok(answered) => {
                    let prompt = &asked[job / samples].prompt;
                    cut += usize::from(answered.reply.finish_reason.as_deref() == Some("length"));
                    answers.push(sample(prompt, name, (job % samples) as u32, answered.reply.text));
                    ControlFlow::Continue(())
                }
                Err(error @ llm_client::Error::Call { .. }) if !error.is_bad_input() => {
                    tracing::warn!("no answer of {name}: {:#}", anyhow::Error::from(error));
                    failed += 1;
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    fatal.get_or_insert(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        console.end();
        if cut > 0 {
            let (all, most) = (answers.len(), self.max_new_tokens);
            tracing::warn!("{cut} of {all} answers of {name} end at the limit of {most} tokens");
        }
        match fatal {
            Some(llm_client::Error::Stopped) => Err(stopped()),
            Some(error) => Err(error.into()),
            None if signals.stop().load(Ordering::Relaxed) => Err(stopped()),
            None if done > 0 && failed as u64 == done => {
                bail!("all calls to {name} failed; see the warnings")
            }
            None => Ok(Answers { answers, failed }),
        }
    }

    /// Lets the policy of a folder answer. Answers of earlier runs with the same settings are read from its log.
    fn sample_folder(
        &self,
        name: &str,
        folder: &Path,
        asked: &[Asked],
        signals: &Signals,
    ) -> anyhow::Result<Vec<Sampled>> {
        let chat = ChatSettings::default();
        let model = LoadedPolicy::open_on(folder, DeviceChoice::Auto.resolve(), &chat)
            .with_context(|| format!("model {}", folder.display()))?;
        let Self { seed, temperature, max_new_tokens, .. } = self;
        let weights = model_fact(folder, "use the same folder")?.value;
        let digest = digest(&(weights, seed, temperature, max_new_tokens, name));
        let path = self.work.join(name).join(format!("samples-{}.jsonl", &digest[..16]));
        fs::create_dir_all(self.work.join(name))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut sampled: Vec<Sampled> = json_lines::checked(&path)?
            .into_iter()
            .map(|row| row.map(|(row, _)| row))
            .collect::<Result<_, _>>()?;
        let known: BTreeSet<(String, String, u32)> =
            sampled.iter().map(|row| (row.id.clone(), row.digest.clone(), row.sample)).collect();
        let every = asked.iter().flat_map(|asked| (0..self.samples).map(move |sample| (asked, sample)));
        let mut open: Vec<(&Asked, u32)> = every
            .filter(|(asked, sample)| {
                !known.contains(&(asked.prompt.id.clone(), asked.prompt.digest(), *sample))
            })
            .collect();
        // Prompts of other runs stay in the log.
        let wanted: BTreeSet<(&str, String)> =
            asked.iter().map(|asked| (asked.prompt.id.as_str(), asked.prompt.digest())).collect();
        sampled.retain(|row| {
            row.sample < self.samples && wanted.contains(&(row.id.as_str(), row.digest.clone()))
        });
        // A wave has one system message.
        open.sort_by(|(one, _), (other, _)| one.dialogue.system.cmp(&other.dialogue.system));
        let mut log = Log::open(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut console = ConsoleProgress::stderr();
        console.begin(&format!("answers of {name}"), open.len() as u64);
        let mut responder =
            model.responder(Seeds::new(self.seed).child("samples"), self.max_new_tokens, self.wave);
        let mut done = 0;
        for same_system in open.chunk_by(|(one, _), (other, _)| one.dialogue.system == other.dialogue.system)
        {
            responder.system = same_system[0].0.dialogue.system.clone();
            for wave in same_system.chunks(usize::from(self.wave)) {
                if signals.stop().load(Ordering::Relaxed) {
                    return Err(stopped());
                }
                let conversations: Vec<Conversation<'_>> =
                    wave.iter().map(|(asked, sample)| self.conversation(asked, *sample)).collect();
                let answers = responder.respond(&conversations).map_err(anyhow::Error::from_boxed)?;
                for ((asked, number), text) in wave.iter().zip(answers) {
                    let row = sample(&asked.prompt, name, *number, text);
                    log.append(&row).with_context(|| format!("cannot write {}", path.display()))?;
                    sampled.push(row);
                }
                done += wave.len() as u64;
                console.advance(done, "");
            }
        }
        console.end();
        Ok(sampled)
    }

    fn conversation<'a>(&self, asked: &'a Asked, sample: u32) -> Conversation<'a> {
        // The id names the random stream of the answer: another set of prompts does not change it.
        let digits = &digest(&(&asked.prompt, sample))[..16];
        let Dialogue { user, assistant, .. } = &asked.dialogue;
        Conversation {
            question_id: u64::from_str_radix(digits, 16).expect("hexadecimal digits"),
            turn: 1,
            user: user.iter().map(String::as_str).collect(),
            assistant: assistant.iter().map(String::as_str).collect(),
            temperature: self.temperature,
        }
    }
}

fn sample(prompt: &Prompt, policy: &str, sample: u32, text: String) -> Sampled {
    Sampled { id: prompt.id.clone(), digest: prompt.digest(), policy: policy.to_owned(), sample, text }
}

fn policies(problem: String) -> AnnotateError {
    AnnotateError::Policies { problem }
}

fn stopped() -> anyhow::Error {
    Stopped("stopped; answers are kept: run the same command to resume".to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_a_name_for_files() {
        assert_eq!(named("a-1=m@http://x/v1?y=z").expect("a name").0, "a-1");
        for bad in ["", "x", "=y", "x=", "../x=y", ".x=y", "a b=y"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
