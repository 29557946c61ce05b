use super::*;

fn heard(model: &str, pieces: &[usize], loud: usize) -> Vec<Event> {
    heard_around(model, pieces, loud, 0..0)
}

/// Half a second of silence, so many loud samples but for those in the gap, a second of silence.
fn heard_around(
    model: &str,
    pieces: &[usize],
    loud: usize,
    gap: std::ops::Range<usize>,
) -> Vec<Event> {
    let told = heard_with(model, pieces, loud, gap, Options::default());
    told.into_iter().map(|(_, event)| event).collect()
}

/// The same, with the samples that had been given when it was told.
fn heard_with(
    model: &str,
    pieces: &[usize],
    loud: usize,
    gap: std::ops::Range<usize>,
    options: Options,
) -> Vec<(usize, Event)> {
    let sound: Vec<f32> = (0..8000 + loud + 16_000)
        .map(
            |i| match (8000..8000 + loud).contains(&i) && !gap.contains(&i) {
                true => ((i * i) % 251) as f32 / 251.0 - 0.5,
                false => 0.0,
            },
        )
        .collect();
    let mut told = Vec::new();
    pollster::block_on(async {
        let (engine, model) = crate::speech::fixture(model);
        let mut listener = Listener::new(&engine, model, options).expect("a listener");
        let cancel = CancelToken::new();
        let mut rest = &sound[..];
        for &n in pieces.iter().cycle() {
            let (now, later) = rest.split_at(n.min(rest.len()));
            let mut tell = |e| told.push((sound.len() - later.len(), e));
            let push = listener.push(now, &cancel, &mut tell);
            push.await.expect("heard");
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let mut tell = |e| told.push((sound.len(), e));
        let end = listener.finish(&cancel, &mut tell);
        end.await.expect("heard");
    });
    told
}

fn finals(told: &[Event]) -> Vec<&Said> {
    let all = told.iter().filter_map(|e| match e {
        Event::Final(said) => Some(said),
        _ => None,
    });
    all.collect()
}

#[test]
fn an_utterance_longer_than_the_window_is_cut() {
    // The tiny Whisper's window is 1 s.
    let told = heard("whisper", &[700], 24_000);
    let all = finals(&told);
    assert!(all.len() > 1, "{told:?}");
    assert!(all.iter().all(|s| s.end - s.start <= 1.0), "{told:?}");
}

#[test]
fn sound_that_piled_up_gets_one_partial_text() {
    let partial = |e: &&Event| matches!(e, Event::Partial(_));
    let little = heard("moonshine", &[700, 1, 333], 64_000);
    let much = heard("moonshine", &[8000 + 60_000, 100_000], 64_000);
    assert!(little.iter().filter(partial).count() >= 3, "{little:?}");
    assert!(much.iter().filter(partial).count() <= 1, "{much:?}");
    let text = |told: &[Event]| finals(told)[0].text.clone();
    assert!(!text(&little).is_empty());
    assert_eq!(
        text(&little),
        text(&much),
        "what is final hangs on no pieces"
    );
}

#[test]
fn the_final_text_is_there_before_the_pause_ends() {
    // A gap of 0.4 s is no end, but more than half of one.
    for gap in [0..0, 24_000..30_400] {
        let told = heard_around("moonshine", &[320], 64_000, gap);
        let [.., Event::Partial(before), Event::Final(last)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(before, last, "made once");
        assert!(!last.text.is_empty() && last.work > Duration::ZERO);
        assert!((last.end - 4.5).abs() < 0.03, "{last:?}");
        assert_eq!(finals(&told).len(), 1);
    }
    let texts = |pieces: &[usize]| -> Vec<String> {
        let told = heard_around("whisper", pieces, 4000, 0..0);
        finals(&told).iter().map(|s| s.text.clone()).collect()
    };
    assert_eq!(texts(&[320]), texts(&[100_000]), "the same one made late");
}

#[test]
fn an_utterance_ends_sooner_where_its_text_is_whole() {
    let heard = |phrase: &str, pieces: &[usize], gap| {
        let list = serde_json::json!([{ "phrase": phrase, "action": 1 }]).to_string();
        let commands = Commands::parse(&list).expect("a phrase");
        let options = Options {
            sooner: Some(Sooner::commands(0.2, Arc::new(commands))),
            partial: 10.0,
            ..Options::default()
        };
        heard_with("moonshine", pieces, 64_000, gap, options)
    };
    let all = |told: &[(usize, Event)]| -> Vec<(usize, String)> {
        let of = |(at, e): &(usize, Event)| match e {
            Event::Final(said) | Event::Partial(said) => Some((*at, said.text.clone())),
            Event::Start(_) => None,
        };
        told.iter().filter_map(of).collect()
    };
    // In no phrase: text at half of either pause, and the end after the longer one.
    let told = all(&heard("nothing of it", &[320], 0..0));
    let ends: Vec<usize> = told.iter().map(|(at, _)| at - 72_000).collect();
    assert_eq!(ends, [1600, 4160, 8000], "{told:?}");
    let [(_, early), (_, late), (_, last)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(late, last);
    let words = |text: &str| {
        let keep = |c: char| c.is_alphanumeric() || c.is_whitespace() || c == '\'';
        text.replace('-', " ").replace(|c| !keep(c), "")
    };
    // A phrase after half of the shorter pause, which ends it, pushed little by little or at once.
    for (pieces, end) in [(&[320][..], 75_200), (&[100_000], 88_000)] {
        let told = all(&heard(&words(early), pieces, 0..0));
        assert_eq!(told.last(), Some(&(end, early.clone())), "{told:?}");
    }
    // One that goes on is not over.
    let gap = 40_000..42_560;
    let told = all(&heard("nothing of it", &[320], gap.clone()));
    assert_eq!(told[0].0, 41_600);
    let told = heard(&words(&told[0].1), &[320], gap);
    let told: Vec<Event> = told.into_iter().map(|(_, event)| event).collect();
    assert_eq!(finals(&told).len(), 1, "{told:?}");
}

#[test]
fn sentences_end_in_a_stop() {
    let sooner = Sooner::sentences(0.2);
    for whole in ["Stop.", "Who?", "\u{201c}Go!\u{201d}", "\u{5b8c}\u{3002}"] {
        assert!((sooner.whole)(whole), "{whole}");
    }
    for not in ["Stop", "Well...", "one, two,", "", "\u{2026}"] {
        assert!(!(sooner.whole)(not), "{not}");
    }
}
