//! Numbers as English words.

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const GROUPS: [(u64, &str); 4] =
    [(1_000_000_000_000, "trillion"), (1_000_000_000, "billion"), (1_000_000, "million"), (1000, "thousand")];

/// The words of a number such as `1,024` or `3.14`: digits, with commas between groups of three, and at most one point.
/// One that begins with 0 or is longer than any that has a name is said digit by digit.
pub fn words(number: &str) -> Vec<&'static str> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: String = whole.chars().filter(char::is_ascii_digit).collect();
    let mut words = Vec::new();
    match whole.parse::<u64>() {
        Ok(n) if whole.len() <= 15 && (whole.len() == 1 || !whole.starts_with('0')) => say(n, &mut words),
        _ => words.extend(digits(&whole)),
    }
    if !fraction.is_empty() {
        words.push("point");
        words.extend(digits(fraction));
    }
    words
}

fn digits(text: &str) -> impl Iterator<Item = &'static str> {
    text.chars().filter_map(|c| SMALL.get(c.to_digit(10)? as usize).copied())
}

fn say(mut n: u64, words: &mut Vec<&'static str>) {
    let beginning = words.len();
    for (size, name) in GROUPS {
        if n >= size {
            hundreds(n / size, words);
            words.push(name);
            n %= size;
        }
    }
    if n > 0 || words.len() == beginning {
        hundreds(n, words);
    }
}

/// Below a thousand.
fn hundreds(mut n: u64, words: &mut Vec<&'static str>) {
    let word = |n: u64| SMALL.get(n as usize).copied().unwrap_or_default();
    if n >= 100 {
        words.extend([word(n / 100), "hundred"]);
        n %= 100;
        if n == 0 {
            return;
        }
    }
    if n >= 20 {
        words.extend(TENS.get(n as usize / 10 - 2));
        n %= 10;
        if n == 0 {
            return;
        }
    }
    words.push(word(n));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_say_them() {
        for (number, said) in [
            ("0", "zero"),
            ("7", "seven"),
            ("20", "twenty"),
            ("42", "forty two"),
            ("100", "one hundred"),
            ("1,024", "one thousand twenty four"),
            ("2000017", "two million seventeen"),
            ("3.14", "three point one four"),
            ("007", "zero zero seven"),
            (
                "12345678901234567890",
                "one two three four five six seven eight nine zero one two three four five six seven eight nine zero",
            ),
        ] {
            assert_eq!(words(number).join(" "), said);
        }
    }
}
