//! The contrasts of a comparison.

use crate::{Error, Options, Scores};

/// The largest number of arms of which all pairs are compared.
const MOST_ARMS: usize = 8;

/// Returns the contrasts `first − second` as indices of arms.
pub(crate) fn contrasts(scores: &Scores, options: &Options) -> Result<Vec<[usize; 2]>, Error> {
    let arms = scores.arms();
    let mut found = Vec::new();
    if let Some(baseline) = &options.baseline {
        let second = find(scores, baseline)?;
        found.extend((0..arms.len()).filter(|&first| first != second).map(|first| [first, second]));
    }
    for text in &options.contrasts {
        let contrast = parse(scores, text)?;
        if !found.contains(&contrast) {
            found.push(contrast);
        }
    }
    if options.baseline.is_none() && options.contrasts.is_empty() {
        if arms.len() > MOST_ARMS {
            let names = arms.join(", ");
            return Err(Error::Argument(format!(
                "{} arms have {} differences: name a --baseline or each --contrast; the arms are {names}",
                arms.len(),
                arms.len() * (arms.len() - 1) / 2
            )));
        }
        found.extend(
            (0..arms.len()).flat_map(|second| (second + 1..arms.len()).map(move |first| [first, second])),
        );
    }
    if found.is_empty() {
        return Err(Error::Argument(format!(
            "there is one arm, {}: a comparison needs two",
            arms.join(", ")
        )));
    }
    Ok(found)
}

fn find(scores: &Scores, name: &str) -> Result<usize, Error> {
    scores.arms.find(name).ok_or_else(|| {
        Error::Argument(format!("there is no arm {name:?}; the arms are {}", scores.arms().join(", ")))
    })
}

/// Parses `A-B`, where either name may have hyphens.
fn parse(scores: &Scores, text: &str) -> Result<[usize; 2], Error> {
    let splits = text.match_indices('-').filter_map(|(at, _)| {
        let [first, second] = [&text[..at], &text[at + 1..]].map(|name| scores.arms.find(name.trim()));
        Some([first?, second?])
    });
    let found: Vec<[usize; 2]> = splits.collect();
    match found[..] {
        [[first, second]] if first == second => {
            Err(Error::Argument(format!("--contrast {text:?} compares an arm with itself")))
        }
        [contrast] => Ok(contrast),
        [] => Err(Error::Argument(format!(
            "--contrast {text:?} is not `A-B` for two arms; the arms are {}",
            scores.arms().join(", ")
        ))),
        _ => Err(Error::Argument(format!("--contrast {text:?} can be split in several ways; rename an arm"))),
    }
}
