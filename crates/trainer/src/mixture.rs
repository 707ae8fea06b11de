//! The sizes of the sources in a mixture.

use std::num::NonZeroUsize;

use crate::error::TrainError;
use crate::recipe::{Complaint, DataSection, Origin};

/// Returns how many examples each source gives, of those that are available; `None` means all.
///
/// Sizes by weight are proportional to the weights, at least 1, and as large as possible without repetition.
///
/// # Errors
///
/// [`TrainError::Recipe`] if a source has fewer examples than its `count`.
pub(crate) fn counts(sources: &[DataSection], available: &[usize]) -> Result<Vec<Option<usize>>, TrainError> {
    let weights: Option<Vec<f64>> = sources.iter().map(|source| source.weight).collect();
    if let Some(weights) = weights {
        let all = weights.iter().zip(available);
        let scale = all.map(|(weight, all)| *all as f64 / weight).fold(f64::INFINITY, f64::min);
        let size = |(weight, all): (f64, &usize)| ((weight * scale).round() as usize).max(1).min(*all);
        return Ok(weights.into_iter().zip(available).map(size).map(Some).collect());
    }
    for (at, (source, &all)) in sources.iter().zip(available).enumerate() {
        let Some(count) = source.count.filter(|count| count.get() > all) else { continue };
        let reason = format!("is {count}, but \"{}\" gives {all}; take at most these", source.path);
        let mut complaint = Complaint::invalid("count", reason);
        if sources.len() > 1 {
            complaint = complaint.within(&at.to_string());
        }
        return Err(complaint.within("data").at(Origin::Code).into());
    }
    Ok(sources.iter().map(|source| source.count.map(NonZeroUsize::get)).collect())
}

/// Returns the size of each source in a sentence; `None` if all sources give all that they have.
pub(crate) fn in_words(counts: &[Option<usize>], available: &[usize]) -> Option<String> {
    let of = |(at, (count, all)): (usize, (&Option<usize>, &usize))| {
        format!("{} of {all} of source {at}", count.unwrap_or(*all))
    };
    let drawn = counts.iter().zip(available).any(|(count, all)| count.is_some_and(|count| count < *all));
    let sources: Vec<String> = counts.iter().zip(available).enumerate().map(of).collect();
    drawn.then(|| format!("The mixture takes {}.", sources.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    fn sources(keys: [&str; 2]) -> Vec<DataSection> {
        let [first, second] = keys.map(|keys| format!("[[data]]\npath = \"d\"\n{keys}\n"));
        let text = format!("[model]\npath = \"m\"\n{first}{second}[output]\ndir = \"o\"\n");
        Recipe::parse("r.toml", &text, &[]).unwrap().data
    }

    #[test]
    fn sizes_are_proportional_to_weights_and_use_a_source_up() {
        let sized = |weights: [f64; 2], available: [usize; 2]| {
            let sources =
                sources(weights.map(|weight| format!("weight = {weight:?}")).each_ref().map(|s| s.as_str()));
            counts(&sources, &available).unwrap()
        };
        assert_eq!(sized([1.0, 1.0], [100, 30]), [Some(30), Some(30)]);
        assert_eq!(sized([3.0, 1.0], [100, 1000]), [Some(100), Some(33)]);
        assert_eq!(sized([0.7, 0.3], [700, 300]), [Some(700), Some(300)]);
        assert_eq!(sized([1e6, 1.0], [100, 100]), [Some(100), Some(1)]);
        assert_eq!(sized([1.0, 1.0], [100, 0]), [Some(1), Some(0)]);
    }

    #[test]
    fn a_mixture_of_parts_says_so() {
        let words = in_words(&[Some(22), None], &[30, 11]);
        assert_eq!(words.as_deref(), Some("The mixture takes 22 of 30 of source 0, 11 of 11 of source 1."));
        assert_eq!(in_words(&[Some(30), None], &[30, 11]), None);
    }

    #[test]
    fn a_count_is_taken_or_refused() {
        let sources = sources(["count = 20", ""]);
        assert_eq!(counts(&sources, &[20, 7]).unwrap(), [Some(20), None]);
        assert_eq!(
            counts(&sources, &[19, 7]).unwrap_err().to_string(),
            "recipe: data.0.count is 20, but \"d\" gives 19; take at most these"
        );
    }
}
