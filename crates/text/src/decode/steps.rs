//! The steps of a decoder and the machine that runs them.

use crate::tokenizer::bytes::push_piece_bytes;
use crate::tokenizer::vocab::byte_piece;

/// What a `Replace` step looks for.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// Literal text, not empty.
    Text(String),
    /// A regular expression.
    Regex(Box<regex::Regex>),
}

/// One step: tokens in, tokens out.
#[derive(Debug)]
pub(crate) enum Step {
    /// Pieces in GPT-2's byte alphabet → one UTF-8 text, broken sequences as U+FFFD.
    ByteLevel,
    /// Runs of `<0x..>` → their text, or one U+FFFD a byte.
    ByteFallback,
    /// All tokens → one.
    Fuse,
    /// Up to `start` leading and `stop` trailing `content` characters of every token go.
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
    /// Every match in every token → `content`.
    Replace { pattern: Pattern, content: String },
    /// `replacement` → space; in the first token → nothing, if `strip_first`.
    Metaspace {
        replacement: char,
        strip_first: bool,
    },
    /// A space before every token but the first, or none and the prefix gone.
    WordPiece { prefix: String, cleanup: bool },
    /// The end-of-word suffix → space, in the last token → nothing.
    Bpe { suffix: String },
    /// Repeats collapse, the pad token goes, the word delimiter → space.
    Ctc {
        pad: String,
        delimiter: String,
        cleanup: bool,
    },
    /// No decoder in the file: tokens joined by spaces.
    Join,
}

impl Step {
    /// Whether all that comes out is one token.
    fn fuses(&self) -> bool {
        matches!(self, Step::ByteLevel | Step::Fuse | Step::Join)
    }

    /// Whether the step needs whole tokens, so that fused text must be collected first.
    fn needs_whole_token(&self) -> bool {
        match self {
            Step::Fuse | Step::Strip { .. } => false,
            Step::Replace { pattern, .. } => matches!(pattern, Pattern::Regex(_)),
            _ => true,
        }
    }
}

/// The steps in order, and for each whether its input is one fused token.
#[derive(Debug)]
pub(crate) struct Decoder {
    steps: Vec<(Step, Input)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// Every item is a whole token.
    Tokens,
    /// Items are parts of one token.
    Parts,
    /// As `Parts`, collected until the end because the step needs it whole.
    Collected,
}

impl Decoder {
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        let mut fused = false;
        let steps = steps
            .into_iter()
            .map(|step| {
                let input = match (fused, step.needs_whole_token()) {
                    (false, _) => Input::Tokens,
                    (true, false) => Input::Parts,
                    (true, true) => Input::Collected,
                };
                fused |= step.fuses();
                (step, input)
            })
            .collect();
        Self { steps }
    }

    /// The bytes one piece stands for, before steps that look at its neighbours.
    pub(crate) fn piece_bytes(&self, piece: &str) -> Vec<u8> {
        let mut text = piece.to_owned();
        for (step, _) in &self.steps {
            match step {
                Step::ByteLevel => {
                    let mut bytes = Vec::with_capacity(text.len());
                    push_piece_bytes(&text, &mut bytes);
                    return bytes;
                }
                Step::ByteFallback => {
                    if let Some(byte) = byte_piece(&text) {
                        return vec![byte];
                    }
                }
                Step::Replace { pattern, content } => text = replace_all(&text, pattern, content),
                Step::Metaspace { replacement, .. } => text = text.replace(*replacement, " "),
                Step::Bpe { suffix } => text = text.replace(suffix.as_str(), " "),
                Step::WordPiece { prefix, .. } => {
                    text = match text.strip_prefix(prefix.as_str()) {
                        Some(rest) => rest.to_owned(),
                        None => format!(" {text}"),
                    };
                }
                Step::Fuse | Step::Strip { .. } | Step::Ctc { .. } | Step::Join => {}
            }
        }
        text.into_bytes()
    }
}

/// The running state of a [`Decoder`].
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    states: Vec<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Whether an item was seen.
    started: bool,
    /// `Strip`: leading characters still to be removed.
    lead: usize,
    /// Text held back.
    text: String,
    /// Bytes held back.
    bytes: Vec<u8>,
}

impl Machine {
    pub(crate) fn new(decoder: &Decoder) -> Self {
        let states = decoder
            .steps
            .iter()
            .map(|(step, _)| State {
                lead: if let Step::Strip { start, .. } = step {
                    *start
                } else {
                    0
                },
                ..State::default()
            })
            .collect();
        Self { states }
    }

    /// Takes the next token's piece and appends to `out` what has become final.
    pub(crate) fn push(&mut self, decoder: &Decoder, piece: &str, out: &mut String) {
        feed(&decoder.steps, &mut self.states, piece, out);
    }

    /// Appends what was held back. The machine is spent.
    pub(crate) fn finish(&mut self, decoder: &Decoder, out: &mut String) {
        flush(&decoder.steps, &mut self.states, out);
    }
}

type Steps<'a> = &'a [(Step, Input)];

fn feed(steps: Steps<'_>, states: &mut [State], item: &str, out: &mut String) {
    let (Some(((step, input), steps)), Some((state, states))) =
        (steps.split_first(), states.split_first_mut())
    else {
        out.push_str(item);
        return;
    };
    if *input == Input::Collected {
        state.text.push_str(item);
        return;
    }
    token(step, *input, state, item, &mut |item| {
        feed(steps, states, item, out)
    });
}

fn flush(steps: Steps<'_>, states: &mut [State], out: &mut String) {
    let (Some(((step, input), steps)), Some((state, states))) =
        (steps.split_first(), states.split_first_mut())
    else {
        return;
    };
    {
        let mut next = |item: &str| feed(steps, states, item, out);
        if *input == Input::Collected {
            let whole = std::mem::take(&mut state.text);
            token(step, Input::Tokens, state, &whole, &mut next);
        }
        end(step, *input, state, &mut next);
    }
    flush(steps, states, out);
}

/// One item through one step.
fn token(step: &Step, input: Input, state: &mut State, item: &str, next: &mut dyn FnMut(&str)) {
    let first = !std::mem::replace(&mut state.started, true);
    match step {
        Step::ByteLevel => {
            push_piece_bytes(item, &mut state.bytes);
            let text = take_valid(&mut state.bytes);
            if !text.is_empty() {
                next(&text);
            }
        }
        Step::ByteFallback => match byte_piece(item) {
            Some(byte) => state.bytes.push(byte),
            None => {
                end_byte_run(state, next);
                next(item);
            }
        },
        Step::Fuse => next(item),
        Step::Strip {
            content,
            start,
            stop,
        } => {
            if input == Input::Tokens {
                state.lead = *start;
                let mut text = String::with_capacity(item.len());
                strip(state, *content, *stop, item, &mut text);
                state.text.clear();
                next(&text);
            } else {
                let mut text = String::with_capacity(item.len());
                strip(state, *content, *stop, item, &mut text);
                if !text.is_empty() {
                    next(&text);
                }
            }
        }
        Step::Replace {
            pattern: Pattern::Text(from),
            content,
        } if input == Input::Parts => {
            let mut text = String::with_capacity(item.len());
            state.text.push_str(item);
            replace_parts(&mut state.text, from, content, &mut text);
            if !text.is_empty() {
                next(&text);
            }
        }
        Step::Replace { pattern, content } => next(&replace_all(item, pattern, content)),
        Step::Metaspace {
            replacement,
            strip_first,
        } => {
            let space = if first && *strip_first { "" } else { " " };
            next(&item.replace(*replacement, space));
        }
        Step::WordPiece { prefix, cleanup } => {
            let mut text = match item.strip_prefix(prefix.as_str()) {
                _ if first => item.to_owned(),
                Some(rest) => rest.to_owned(),
                None => format!(" {item}"),
            };
            if *cleanup {
                text = clean_up(&text);
            }
            next(&text);
        }
        Step::Bpe { suffix } => {
            if !first {
                next(&state.text.replace(suffix.as_str(), " "));
            }
            state.text.clear();
            state.text.push_str(item);
        }
        Step::Ctc {
            pad,
            delimiter,
            cleanup,
        } => {
            if !first && state.text == item {
                return;
            }
            state.text.clear();
            state.text.push_str(item);
            let mut text = if pad.is_empty() {
                item.to_owned()
            } else {
                item.replace(pad.as_str(), "")
            };
            if *cleanup {
                text = clean_up(&text);
                if !delimiter.is_empty() {
                    text = text.replace(delimiter.as_str(), " ");
                }
            }
            if !text.is_empty() {
                next(&text);
            }
        }
        Step::Join => {
            if !first {
                next(" ");
            }
            next(item);
        }
    }
}

/// What a step still holds when the input ends.
#[allow(clippy::collapsible_match)] // a guard that takes the bytes would hide that it does
fn end(step: &Step, input: Input, state: &mut State, next: &mut dyn FnMut(&str)) {
    match step {
        Step::ByteLevel => {
            if !std::mem::take(&mut state.bytes).is_empty() {
                next("\u{fffd}");
            }
        }
        Step::ByteFallback => end_byte_run(state, next),
        Step::Bpe { suffix } if state.started => {
            next(&std::mem::take(&mut state.text).replace(suffix.as_str(), ""));
        }
        Step::Replace {
            pattern: Pattern::Text(_),
            ..
        } if input == Input::Parts => {
            let rest = std::mem::take(&mut state.text);
            if !rest.is_empty() {
                next(&rest);
            }
        }
        // What `Strip` holds back is what it strips.
        _ => {}
    }
}

/// Moves out the text that no further byte can change; keeps the bytes of a character that may
/// still be completed. A broken sequence is U+FFFD, one per maximal part, as `from_utf8_lossy` has it.
fn take_valid(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut keep = 0;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let broken = chunk.invalid();
        if broken.is_empty() {
            continue;
        }
        let unfinished = chunks.peek().is_none()
            && std::str::from_utf8(broken).is_err_and(|e| e.error_len().is_none());
        if unfinished {
            keep = broken.len();
        } else {
            text.push('\u{fffd}');
        }
    }
    bytes.drain(..bytes.len() - keep);
    text
}

fn end_byte_run(state: &mut State, next: &mut dyn FnMut(&str)) {
    if state.bytes.is_empty() {
        return;
    }
    match std::str::from_utf8(&state.bytes) {
        Ok(text) => next(text),
        Err(_) => state.bytes.iter().for_each(|_| next("\u{fffd}")),
    }
    state.bytes.clear();
}

/// Removes leading `content` while `state.lead` lasts; holds back in `state.text` up to `stop`
/// trailing ones.
fn strip(state: &mut State, content: char, stop: usize, item: &str, out: &mut String) {
    for c in item.chars() {
        if c == content && state.lead > 0 {
            state.lead -= 1;
            continue;
        }
        state.lead = 0;
        if c == content && stop > 0 {
            if state.text.len() == stop * content.len_utf8() {
                out.push(content);
            } else {
                state.text.push(c);
            }
        } else {
            out.push_str(&state.text);
            state.text.clear();
            out.push(c);
        }
    }
}

fn replace_all(text: &str, pattern: &Pattern, content: &str) -> String {
    match pattern {
        Pattern::Text(from) => text.replace(from.as_str(), content),
        Pattern::Regex(re) => re.replace_all(text, regex::NoExpand(content)).into_owned(),
    }
}

/// Replaces in `held` what matches and moves out all but the longest tail that could begin a match.
fn replace_parts(held: &mut String, from: &str, content: &str, out: &mut String) {
    while let Some(at) = held.find(from) {
        out.push_str(&held[..at]);
        out.push_str(content);
        held.drain(..at + from.len());
    }
    let keep = partial_tail(held, from);
    out.push_str(&held[..held.len() - keep]);
    held.drain(..held.len() - keep);
}

/// The length in bytes of the longest proper prefix of `pattern` that ends `text`.
pub(crate) fn partial_tail(text: &str, pattern: &str) -> usize {
    let longest = text.len().min(pattern.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|&n| text.as_bytes()[text.len() - n..] == pattern.as_bytes()[..n])
        .unwrap_or(0)
}

/// The English tidying of the WordPiece decoder, in its order.
fn clean_up(text: &str) -> String {
    const PAIRS: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    PAIRS
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
