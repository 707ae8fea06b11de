//! Numbers with the units that people use.

/// Returns a duration with its two largest units, such as `3 h 40 min`.
pub(crate) fn duration(seconds: f64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let largest =
        |seconds: u64| UNITS.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let mut seconds = seconds.round() as u64;
    if let Some((_, unit)) = UNITS.get(largest(seconds) + 1) {
        // Rounded to the smaller unit, a duration may reach the next larger one.
        seconds = (seconds + unit / 2) / unit * unit;
    }
    let at = largest(seconds);
    let (name, unit) = UNITS[at];
    let rest = UNITS.get(at + 1).map(|(name, smaller)| (name, seconds % unit / smaller));
    match rest {
        Some((smaller, count)) if count > 0 => format!("{} {name} {count} {smaller}", seconds / unit),
        _ => format!("{} {name}", seconds / unit),
    }
}

/// Returns a number of bytes with one decimal, such as `4.7 TB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["MB", "GB", "TB", "PB"];
    let mut number = bytes as f64 / 1e6;
    let mut unit = 0;
    while number >= 999.95 && unit + 1 < UNITS.len() {
        number /= 1e3;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_two_largest_units() {
        for (seconds, text) in [
            (0.04, "0.0 s"),
            (9.0, "9.0 s"),
            (59.0, "59 s"),
            (60.0, "1 min"),
            (59.7, "1 min"),
            (61.0, "1 min 1 s"),
            (13_200.0, "3 h 40 min"),
            (3_599.9, "1 h"),
            (7_199.0, "2 h"),
            (86_400.0 * 3.0, "3 d"),
            (86_400.0 * 2.5, "2 d 12 h"),
            (86_399.0, "1 d"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_the_unit_that_leaves_the_fewest_digits() {
        for (bytes, text) in [
            (0, "0.0 MB"),
            (1_490_000, "1.5 MB"),
            (999_960_000, "1.0 GB"),
            (72_400_000_000, "72.4 GB"),
            (4_700_000_000_000, "4.7 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
