//! The language that is spoken, where who calls knows it.

use super::{Options, Task, Vocabulary};
use crate::{Error, Result};

/// The language that the options name, checked against what the model knows. OpenAI's program warns of another one than English told to
/// an English model and goes on in English.
pub(super) fn language(words: &Vocabulary, options: &Options) -> Result<Option<(u32, String)>> {
    let wanted = options.language.as_ref().map(|l| l.to_lowercase());
    if words.languages.is_empty() {
        if let Some(other) = wanted.filter(|l| l != "en") {
            return Err(Error::invalid(format!(
                "language {other}: this model knows English only; take a multilingual one, such as {MULTILINGUAL}"
            )));
        }
        if options.task == Task::Translate {
            return Err(Error::invalid(format!(
                "this model knows English only and translates nothing; take a multilingual one, such as {MULTILINGUAL}"
            )));
        }
        return Ok(None);
    }
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    let found = words.languages.iter().find(|(code, _)| *code == wanted);
    let (code, id) = found.ok_or_else(|| {
        let known: Vec<&str> = words.languages.iter().map(|(c, _)| c.as_str()).collect();
        Error::invalid(format!("language {wanted}; known: {}", known.join(" ")))
    })?;
    Ok(Some((*id, code.clone())))
}

/// For a model that cannot be told a language nor a task nor words to be expected: it hears samples and nothing else.
///
/// # Errors
/// `InvalidInput` if it is told any.
pub(super) fn one_only(options: &Options) -> Result<()> {
    if let Some(language) = &options.language {
        return Err(Error::invalid(format!(
            "language {language}: this model has one language of its own and cannot be told any; leave it out, or take a multilingual model, such as {MULTILINGUAL}"
        )));
    }
    if options.task == Task::Translate {
        return Err(Error::invalid(format!(
            "this model translates nothing; take a multilingual one, such as {MULTILINGUAL}"
        )));
    }
    if options.hotwords.is_some() {
        return Err(Error::invalid(
            "this model cannot be shown words to be expected; leave them out, or take a Whisper model",
        ));
    }
    Ok(())
}

/// The model of the list that knows other languages than English.
const MULTILINGUAL: &str = "whisper-base";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_that_the_model_does_not_know_is_refused() {
        let (_, model) = crate::speech::fixture("whisper");
        let many = Vocabulary::of(&model).expect("a vocabulary");
        let english = Vocabulary {
            languages: Vec::new(),
            tasks: None,
            ..many.clone()
        };
        let told = |words: &Vocabulary, code: Option<&str>, task| {
            let options = Options {
                language: code.map(str::to_owned),
                task,
                ..Options::default()
            };
            language(words, &options).map(|l| l.map(|(_, code)| code))
        };
        let (here, there) = (Task::Transcribe, Task::Translate);
        let ok = |found: Result<Option<String>>| found.expect("a language of the model");
        assert_eq!(ok(told(&many, Some("FR"), there)), Some("fr".to_owned()));
        assert_eq!(ok(told(&many, None, there)), None);
        assert_eq!(ok(told(&english, Some("en"), here)), None);
        let refused = |words, code, task| {
            let error = told(words, code, task).expect_err("a language that it does not know");
            error.to_string()
        };
        assert!(refused(&many, Some("de"), here).contains("known: en fr"));
        for (code, task) in [(Some("fr"), here), (None, there), (Some("en"), there)] {
            let said = refused(&english, code, task);
            assert!(
                said.contains("English only") && said.contains(MULTILINGUAL),
                "{said}"
            );
        }
        let list = crate::catalogue::Catalogue::builtin().expect("the list");
        assert!(list.get(MULTILINGUAL).is_some());
    }

    #[test]
    fn a_model_of_samples_is_told_nothing() {
        use crate::pipelines::{listen, transcribe::Recognizer};
        let (engine, model) = crate::speech::fixture("moonshine");
        let told = |language: Option<&str>, task, hotwords: Option<&str>| {
            let mut options = listen::Options::default();
            options.transcribe.language = language.map(str::to_owned);
            options.transcribe.task = task;
            options.transcribe.hotwords = hotwords.map(str::to_owned);
            let alone = Recognizer::new(&engine, model.clone(), options.transcribe.clone());
            let live = listen::Listener::new(&engine, model.clone(), options);
            let errors = [alone.err(), live.err()];
            errors.map(|e| e.map_or_else(String::new, |e| e.to_string()))
        };
        assert_eq!(told(None, Task::Transcribe, None), ["", ""]);
        for said in told(Some("de"), Task::Transcribe, None) {
            assert!(
                said.contains("language de") && said.contains("leave it out"),
                "{said}"
            );
        }
        for said in told(None, Task::Transcribe, Some("lamp")) {
            assert!(said.contains("to be expected"), "{said}");
        }
        for said in told(None, Task::Translate, None) {
            assert!(said.contains("translates nothing"), "{said}");
        }
    }
}
