//! Whether words are what a phrase says, and whether more of them could follow.

use super::{MAX, Part, SLOT, Slots};

/// True if `words` are what `parts` say and as many are left as `end` allows; the slots are filled then.
pub(super) fn follow(
    parts: &[Part],
    words: &[String],
    slots: &mut Slots,
    end: &dyn Fn(usize) -> bool,
) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        return end(words.len());
    };
    let held = slots.len();
    match part {
        Part::Word(word) => match words.split_first() {
            Some((said, later)) => same(word, said) && follow(rest, later, slots, end),
            None => false,
        },
        Part::Choice(name, choices) => choices.iter().any(|choice| {
            // Of a choice as many words are its own as there are parts: choices hold plain words or further choices.
            (0..=words.len().min(MAX)).any(|n| {
                let (own, later) = words.split_at(n);
                slots.truncate(held);
                if !follow(choice, own, slots, &|left| left == 0) {
                    return false;
                }
                if let Some(name) = name {
                    // Under the name is what was meant, not what was heard.
                    slots.push((name.clone(), plain(choice).unwrap_or_else(|| own.join(" "))));
                }
                follow(rest, later, slots, end)
            })
        }),
        Part::Slot(name) => {
            let most = words.len().min(SLOT);
            (1..=most).any(|n| {
                // At the end of a phrase it is all that is said, elsewhere no more than has to be.
                let n = if rest.is_empty() { most + 1 - n } else { n };
                let (own, later) = words.split_at(n);
                slots.truncate(held);
                slots.push((name.clone(), own.join(" ")));
                follow(rest, later, slots, end)
            })
        }
    }
}

/// True if `words` are the beginning of what `parts` say, more words can follow, and these would not mean what is `known` already: slots of
/// the same phrase.
pub(super) fn open(
    parts: &[&Part],
    words: &[String],
    slots: &Slots,
    known: Option<&Slots>,
) -> bool {
    // What is said by words alone fills no slot.
    let matters = |rest: &[&Part]| known != Some(slots) || rest.iter().any(|p| p.names());
    let Some((part, rest)) = parts.split_first() else {
        return false;
    };
    let Some((said, later)) = words.split_first() else {
        return matters(parts);
    };
    match part {
        Part::Word(word) => {
            // The word may be longer than what was heard of it.
            let begun = later.is_empty() && word != said && word.starts_with(said.as_str());
            begun && matters(rest) || same(word, said) && open(rest, later, slots, known)
        }
        Part::Choice(None, choices) => choices.iter().any(|choice| {
            let all: Vec<&Part> = choice.iter().chain(rest.iter().copied()).collect();
            open(&all, words, slots, known)
        }),
        Part::Choice(Some(name), choices) => choices.iter().any(|choice| {
            let own: Vec<&Part> = choice.iter().collect();
            let whole = |n: usize| {
                let (own, later) = words.split_at(n);
                let mut slots = slots.clone();
                if !follow(choice, own, &mut slots, &|left| left == 0) {
                    return false;
                }
                slots.push((name.clone(), plain(choice).unwrap_or_else(|| own.join(" "))));
                open(rest, later, &slots, known)
            };
            open(&own, words, slots, None) || (0..=words.len()).any(whole)
        }),
        Part::Slot(name) => (1..=words.len().min(SLOT)).any(|n| {
            let (own, later) = words.split_at(n);
            let own = (name.clone(), own.join(" "));
            // Before other words a slot takes no more than it has to.
            let taken = known.and_then(|known| known.get(slots.len()));
            if !rest.is_empty() && taken.is_some_and(|taken| *taken != own) {
                return false;
            }
            let mut slots = slots.clone();
            slots.push(own);
            later.is_empty() && n < SLOT && (rest.is_empty() || known.is_none())
                || open(rest, later, &slots, known)
        }),
    }
}

impl Part {
    /// True if it fills a slot.
    fn names(&self) -> bool {
        match self {
            Part::Word(_) => false,
            Part::Slot(_) | Part::Choice(Some(_), _) => true,
            Part::Choice(None, choices) => choices.iter().flatten().any(Part::names),
        }
    }
}

/// The text of parts that are words alone.
fn plain(parts: &[Part]) -> Option<String> {
    let words: Option<Vec<&str>> = parts
        .iter()
        .map(|p| match p {
            Part::Word(w) => Some(w.as_str()),
            _ => None,
        })
        .collect();
    Some(words?.join(" "))
}

/// Equal, or of five letters and more with one letter more, less or other.
pub(super) fn same(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().min(b.len()) < 5 || a.len().abs_diff(b.len()) > 1 {
        return false;
    }
    let first = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[first..], &b[first..]);
    match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Equal => a.get(1..) == b.get(1..),
        std::cmp::Ordering::Less => b.get(1..) == Some(a),
        std::cmp::Ordering::Greater => a.get(1..) == Some(b),
    }
}
