//! Python's `strftime` for chat templates, in UTC and English.

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats a time, in seconds since 1970. Directives other than those of dates and times stay as they are.
pub(crate) fn strftime(format: &str, seconds: i64) -> String {
    let date = Date::at(seconds);
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // glibc's `-` leaves out the padding.
        let unpadded = chars.next_if_eq(&'-').is_some();
        match chars.next() {
            Some(directive) => match date.directive(directive) {
                Some(text) if unpadded => {
                    let stripped = text.trim_start_matches(['0', ' ']);
                    out.push_str(if stripped.is_empty() { "0" } else { stripped });
                }
                Some(text) => out.push_str(&text),
                None => out.extend(['%', directive]),
            },
            None => out.push('%'),
        }
    }
    out
}

/// A moment in UTC.
struct Date {
    year: i64,
    month: usize,
    day: i64,
    year_day: i64,
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Date {
    fn at(seconds: i64) -> Self {
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        Self {
            year,
            month,
            day,
            year_day: days - days_to_year(year) + 1,
            // 1970-01-01 was a Thursday.
            weekday: (days + 3).rem_euclid(7) as usize,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    fn directive(&self, directive: char) -> Option<String> {
        let hour12 = (self.hour + 11) % 12 + 1;
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month + 1),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.year_day),
            'B' => MONTHS[self.month].to_owned(),
            'b' | 'h' => MONTHS[self.month][..3].to_owned(),
            'A' => DAYS[self.weekday].to_owned(),
            'a' => DAYS[self.weekday][..3].to_owned(),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour12:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month + 1, self.day),
            'T' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'Z' => String::new(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

/// Seconds from 1970 to the beginning of a day, if there is such a day.
pub(crate) fn midnight(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let first = days_to_year(year);
    let same = |days: &i64| civil(*days) == (year, usize::try_from(month - 1).unwrap_or(0), day);
    (first..first + 366).find(same).map(|days| days * 86_400)
}

/// Year, month (from 0) and day of the `days`-th day after 1970-01-01.
fn civil(days: i64) -> (i64, usize, i64) {
    // A first guess by the mean length of a year, then the neighbour where it is off by one.
    let mut year = 1970 + (days as f64 / 365.2425).floor() as i64;
    while days_to_year(year + 1) <= days {
        year += 1;
    }
    while days_to_year(year) > days {
        year -= 1;
    }
    let mut rest = days - days_to_year(year);
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    (year, month, rest + 1)
}

/// Days from 1970-01-01 to the first of January of `year`.
fn days_to_year(year: i64) -> i64 {
    let before = year - 1;
    let leaps = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    (year - 1970) * 365 + leaps - (1969 / 4 - 1969 / 100 + 1969 / 400)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_pythons() {
        // From Python: datetime.fromtimestamp(t, timezone.utc).strftime(format).
        let format = "%d %b %Y|%A %a, %B %-d %e %y %j %H:%M:%S %I %p %%";
        let cases = [
            (0, "01 Jan 1970|Thursday Thu, January 1  1 70 001 00:00:00 12 AM %"),
            (951_782_399, "28 Feb 2000|Monday Mon, February 28 28 00 059 23:59:59 11 PM %"),
            (951_868_799, "29 Feb 2000|Tuesday Tue, February 29 29 00 060 23:59:59 11 PM %"),
            (1_735_689_599, "31 Dec 2024|Tuesday Tue, December 31 31 24 366 23:59:59 11 PM %"),
            (4_107_542_400, "01 Mar 2100|Monday Mon, March 1  1 00 060 00:00:00 12 AM %"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(strftime(format, seconds), expected);
        }
        assert_eq!(strftime("%F %T", -1), "1969-12-31 23:59:59");
        assert_eq!(strftime("100% %q", 0), "100% %q");
    }
}
