//! The conventions of early 2024: what TRL 0.7.10 made of what the alignment-handbook rendered.

use super::{Boundary, Cut, Looks, TokenPair, TokenizeOptions, Truncation, common_prefix};
use crate::error::DataError;
use crate::message::Message;
use crate::record::{Pair, Text};
use crate::tokenizer::{RenderMode, Tokenizer};

/// A pair's ids before they are cut.
pub(super) fn tokenize_pair(
    pair: &Pair,
    tokenizer: &Tokenizer,
    looks: &mut Looks,
) -> Result<(TokenPair, Boundary), DataError> {
    let [prompt, chosen, rejected] = match (&pair.prompt, &pair.chosen, &pair.rejected) {
        (Text::Plain(prompt), Text::Plain(chosen), Text::Plain(rejected)) => {
            [prompt, chosen, rejected].map(String::clone)
        }
        (Text::Chat(prompt), Text::Chat(chosen), Text::Chat(rejected)) => {
            render(pair, [prompt, chosen, rejected], tokenizer, looks)?
        }
        _ => return Err(DataError::MixedForms { id: pair.id.clone() }),
    };
    let eos =
        tokenizer.eos_id().ok_or_else(|| DataError::NoEosToken { folder: tokenizer.folder().to_owned() })?;
    let mut known = Vec::new();
    let mut encode = |text: &str| tokenizer.encode_rendered(text, &mut known);
    let open = encode(&prompt)?;
    let chosen = encode(&[&*prompt, &chosen].concat())?;
    let rejected = encode(&[&*prompt, &rejected].concat())?;
    // Each response takes the prompt's last token with it where that is another one once the response follows.
    let ends = [&chosen, &rejected].map(|full| {
        let is_same = full.starts_with(&open);
        if is_same { open.len() } else { open.len().saturating_sub(1).min(full.len()) }
    });
    let shared = ends[0].min(ends[1]).min(common_prefix(&chosen, &rejected));
    let boundary = if shared == open.len() { Boundary::Match } else { Boundary::Mismatch };
    let response = |full: &[u32]| {
        let mut response = full[shared..].to_vec();
        response.push(eos);
        response
    };
    let bos = tokenizer.bos_id().into_iter();
    let tokens = TokenPair {
        id: pair.id.clone(),
        prompt: bos.chain(chosen[..shared].iter().copied()).collect(),
        chosen: response(&chosen),
        rejected: response(&rejected),
        flipped: pair.flipped,
    };
    tokens.check()?;
    Ok((tokens, boundary))
}

/// First the prompt is cut to `max_prompt_length`, then, if that is not enough, both responses to what it leaves.
pub(super) fn truncate(pair: &mut TokenPair, max_prompt_length: usize, options: &TokenizeOptions) -> Cut {
    let longer = pair.chosen.len().max(pair.rejected.len());
    if pair.prompt.len() + longer <= options.max_length {
        return Cut::Nothing;
    }
    let mut cut = Cut::Nothing;
    if pair.prompt.len() > max_prompt_length {
        cut = Cut::Prompt;
        match options.truncation {
            Truncation::KeepStart => pair.prompt.truncate(max_prompt_length),
            Truncation::KeepEnd => drop(pair.prompt.drain(..pair.prompt.len() - max_prompt_length)),
        }
    }
    if pair.prompt.len() + longer > options.max_length {
        let room = options.max_length - max_prompt_length;
        let responses = [&mut pair.chosen, &mut pair.rejected].into_iter();
        let shortened = responses.filter(|response| response.len() > room);
        let shortened = shortened.map(|response| response.truncate(room)).count();
        cut = match cut {
            Cut::Prompt => Cut::Both(shortened),
            _ => Cut::Responses(shortened),
        };
    }
    cut
}

/// Prompt and last turns, rendered apart and none of them open for an answer, so that the tag that opens the
/// assistant's turn is in both responses. Where the template knows system turns, there is one, if empty.
fn render(
    pair: &Pair,
    [prompt, chosen, rejected]: [&[Message]; 3],
    tokenizer: &Tokenizer,
    looks: &mut Looks,
) -> Result<[String; 3], DataError> {
    let (before, answers) = chosen.split_at(chosen.len().saturating_sub(1));
    let mut prompt = [prompt, before].concat();
    let has_system = prompt.first().is_some_and(|first| first.role() == "system");
    if !has_system && tokenizer.knows_system_turns() {
        prompt.insert(0, Message::system(""));
    }
    let last = &rejected[rejected.len().saturating_sub(1)..];
    let mut text = |messages: &[Message]| {
        let rendering = tokenizer.render(&[messages], &pair.context, RenderMode::Complete)?;
        looks.add(Looks { given: rendering.given, seen: rendering.seen });
        Ok(rendering.text)
    };
    Ok([text(&prompt)?, text(answers)?, text(last)?])
}
