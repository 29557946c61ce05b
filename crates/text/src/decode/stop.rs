//! Stop strings across the borders of streamed pieces.

use super::steps::partial_tail;

/// Finds stop strings in a stream of text pieces, holding back only what may still become one.
///
/// ```
/// let mut stop = firelight_text::StopMatcher::new(["</s>", "User:"]);
/// assert_eq!(stop.push("Fine. <"), ("Fine. ".into(), false));   // "<" may begin "</s>"
/// assert_eq!(stop.push("b>Us"), ("<b>".into(), false));
/// assert_eq!(stop.push("er: what"), ("".into(), true));         // the stop string is not text
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher of these strings; empty ones are ignored, and with none nothing is held back.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops
            .into_iter()
            .map(Into::into)
            .filter(|s: &String| !s.is_empty());
        Self {
            stops: stops.collect(),
            held: String::new(),
            stopped: false,
        }
    }

    /// Takes the next piece. Returns the text to show and whether a stop string was found; it and
    /// everything after it is dropped. Of several, the first to be complete counts (of two that end
    /// together, the longer), so that the result does not depend on where pieces end.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        self.held.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| {
                self.held
                    .find(stop.as_str())
                    .map(|at| (at + stop.len(), at))
            })
            .min();
        if let Some((_, at)) = found {
            self.held.truncate(at);
            self.stopped = true;
            return (std::mem::take(&mut self.held), true);
        }
        let tails = self.stops.iter().map(|stop| partial_tail(&self.held, stop));
        let keep = tails.max().unwrap_or(0);
        let emit = self.held[..self.held.len() - keep].to_owned();
        self.held.drain(..emit.len());
        (emit, false)
    }

    /// The text held back when the stream ends without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().copied());
        let mut text = String::new();
        for piece in pieces {
            text += &matcher.push(piece).0;
        }
        text += &matcher.finish();
        (text, matcher.stopped())
    }

    #[test]
    fn across_every_border() {
        let text = "one two STOP three";
        for at in 0..=text.len() {
            for to in at..=text.len() {
                let pieces = [&text[..at], &text[at..to], &text[to..]];
                assert_eq!(run(&["STOP"], &pieces), ("one two ".into(), true));
                assert_eq!(run(&["STOPS", "x"], &pieces), (text.into(), false));
            }
        }
    }

    #[test]
    fn held_text_is_only_what_may_match() {
        let mut m = StopMatcher::new(["aab", "é🙂"]);
        assert_eq!(m.push("xaa").0, "x");
        assert_eq!(m.push("a").0, "a"); // "aaa": the first a is out of the game
        assert_eq!(m.push("é").0, "aa");
        assert_eq!(m.push("é").0, "é");
        assert_eq!(m.push("🙂"), (String::new(), true));
        assert_eq!(m.push("more"), (String::new(), true));
    }

    #[test]
    fn the_first_complete_counts_and_empty_is_ignored() {
        assert_eq!(run(&["cd", "bc", ""], &["abcd"]), ("a".into(), true));
        for pieces in [&["abcdX"][..], &["abc", "dX"], &["a", "b", "c", "d", "X"]] {
            assert_eq!(run(&["abcdX", "bc", "c"], pieces), ("a".into(), true));
        }
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), false));
    }
}
