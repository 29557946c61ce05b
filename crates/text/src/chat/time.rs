//! A calendar time and `strftime`: templates put today's date into the system message.

/// A time of day on a date (proleptic Gregorian), as the user's clock shows it.
///
/// There is no clock in here: the program passes the time in, so that a rendering can be repeated and
/// the browser works too.
///
/// ```
/// let time = firelight_text::DateTime::from_unix(1_721_952_000);
/// assert_eq!(time.strftime("%d %b %Y"), "26 Jul 2024");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    /// The year.
    pub year: i32,
    /// 1–12.
    pub month: u8,
    /// 1–31.
    pub day: u8,
    /// 0–23.
    pub hour: u8,
    /// 0–59.
    pub minute: u8,
    /// 0–59.
    pub second: u8,
}

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
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

impl DateTime {
    /// The UTC time of seconds since 1970-01-01. For local time, add the offset to `seconds` first.
    /// Seconds beyond the years ±30 000 are cut to them.
    pub fn from_unix(seconds: i64) -> Self {
        let seconds = seconds.clamp(-1_000_000_000_000, 900_000_000_000);
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days from civil, after Howard Hinnant: eras of 400 years that begin in March.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let of_era = z.rem_euclid(146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        Self {
            year: i32::try_from(year).unwrap_or_default(),
            month: month as u8,
            day: day as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    /// Days since 1970-01-01.
    fn days(&self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month = i64::from(self.month);
        let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5
            + i64::from(self.day)
            - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }

    /// The date as C's `strftime` writes it in the C locale. `%-d` and `%e` are understood; a directive
    /// that is not stays as it is written.
    pub fn strftime(&self, format: &str) -> String {
        let mut out = String::with_capacity(format.len() + 16);
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let rest = chars.as_str();
            let (pad, directive) = match chars.next() {
                Some('-') => (false, chars.next()),
                directive => (true, directive),
            };
            if !directive.is_some_and(|d| self.directive(d, pad, &mut out)) {
                out.push('%');
                chars = rest.chars();
            }
        }
        out
    }

    fn directive(&self, directive: char, pad: bool, out: &mut String) -> bool {
        let mut number = |n: i64, width: usize| {
            *out += &if pad {
                format!("{n:0width$}")
            } else {
                n.to_string()
            };
        };
        let weekday = (self.days() + 4).rem_euclid(7);
        let month = usize::from(self.month)
            .checked_sub(1)
            .and_then(|m| MONTHS.get(m));
        let day_of_year = || {
            self.days()
                - Self {
                    month: 1,
                    day: 1,
                    ..*self
                }
                .days()
        };
        let hour12 = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        match directive {
            'Y' => number(self.year.into(), 1),
            'y' => number(i64::from(self.year).rem_euclid(100), 2),
            'm' => number(self.month.into(), 2),
            'd' => number(self.day.into(), 2),
            'H' => number(self.hour.into(), 2),
            'I' => number(hour12.into(), 2),
            'M' => number(self.minute.into(), 2),
            'S' => number(self.second.into(), 2),
            'j' => number(day_of_year() + 1, 3),
            'w' => number(weekday, 1),
            'u' => number(if weekday == 0 { 7 } else { weekday }, 1),
            'e' => *out += &format!("{:2}", self.day),
            'f' => *out += "000000",
            'p' => *out += if self.hour < 12 { "AM" } else { "PM" },
            'B' => *out += month.unwrap_or(&""),
            'b' | 'h' => *out += month.and_then(|m| m.get(..3)).unwrap_or_default(),
            'A' => *out += DAYS.get(weekday as usize).unwrap_or(&""),
            'a' => {
                *out += DAYS
                    .get(weekday as usize)
                    .and_then(|d| d.get(..3))
                    .unwrap_or_default()
            }
            'F' => *out += &self.strftime("%Y-%m-%d"),
            'T' | 'X' => *out += &self.strftime("%H:%M:%S"),
            'R' => *out += &self.strftime("%H:%M"),
            'D' | 'x' => *out += &self.strftime("%m/%d/%y"),
            'c' => *out += &self.strftime("%a %b %e %H:%M:%S %Y"),
            'Z' | 'z' => {} // a time without a zone, as Python's datetime.now()
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        // From `date -u -d @N +…` of GNU coreutils.
        let format = "%Y-%m-%d %H:%M:%S %a %A %b %B %j %w %u %y %I %p %e|%-d|%-m";
        for (unix, expected) in [
            (
                0,
                "1970-01-01 00:00:00 Thu Thursday Jan January 001 4 4 70 12 AM  1|1|1",
            ),
            (
                951_782_399,
                "2000-02-28 23:59:59 Mon Monday Feb February 059 1 1 00 11 PM 28|28|2",
            ),
            (
                951_782_400,
                "2000-02-29 00:00:00 Tue Tuesday Feb February 060 2 2 00 12 AM 29|29|2",
            ),
            (
                -1,
                "1969-12-31 23:59:59 Wed Wednesday Dec December 365 3 3 69 11 PM 31|31|12",
            ),
            (
                4_107_542_399,
                "2100-02-28 23:59:59 Sun Sunday Feb February 059 0 7 00 11 PM 28|28|2",
            ),
            (
                4_107_542_400,
                "2100-03-01 00:00:00 Mon Monday Mar March 060 1 1 00 12 AM  1|1|3",
            ),
        ] {
            assert_eq!(DateTime::from_unix(unix).strftime(format), expected);
        }
    }

    #[test]
    fn round_trip_over_centuries() {
        for day in (-800_000..800_000i64).step_by(97) {
            assert_eq!(DateTime::from_unix(day * 86_400 + 86_399).days(), day);
        }
    }

    #[test]
    fn odd_formats_do_not_fail() {
        let time = DateTime::from_unix(i64::MAX);
        assert_eq!(time.strftime("100% %Q %-Q %"), "100% %Q %-Q %");
        assert_eq!(time.strftime("%%d é%"), "%d é%");
        let nonsense = DateTime {
            year: i32::MIN,
            month: 77,
            day: 0,
            hour: 99,
            minute: 0,
            second: 0,
        };
        let _ = nonsense.strftime("%c %j %b %A %p");
        let _ = DateTime::from_unix(i64::MIN).strftime("%c");
    }
}
