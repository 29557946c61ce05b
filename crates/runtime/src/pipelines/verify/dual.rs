//! The cases of models of texts and pictures: both towers, their vectors, and how well they agree.

use super::Verify;
use super::media::picture;
use crate::encoder::{EncoderRun, LoadedEncoder, Texts, Tokens, Want};
use crate::engine::Engine;
use crate::media::Medium;
use crate::pipelines::embed::{cosine, normalize};
use crate::source::CancelToken;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// A text's ids as the reference pads and cuts them.
fn tokens(model: &LoadedEncoder, text: &str, max: usize) -> Result<Tokens> {
    let tokenizer = &model.text.tokenizer;
    let mut ids = tokenizer.encode_plain(text, true)?;
    let end = ids.len().saturating_sub(tokenizer.around().1);
    let cut = ids.len().saturating_sub(max).min(end);
    ids.drain(end - cut..end);
    if model.model.spec().texts == Texts::Padded {
        ids.resize(max, tokenizer.pad().unwrap_or(0));
    }
    Ok(Tokens {
        ids,
        types: Vec::new(),
    })
}

impl Verify<'_> {
    /// Runs all texts and pictures of a case in one batch each.
    pub(super) async fn dual_case(
        &mut self,
        engine: &Engine,
        model: &LoadedEncoder,
        case: &str,
        value: &Value,
        dir: &Path,
    ) -> Result<()> {
        let strings = |key: &str| -> Vec<&str> {
            let list = value.get(key).and_then(Value::as_array);
            let list = list.into_iter().flatten();
            list.filter_map(Value::as_str).collect()
        };
        let (texts, images) = (strings("texts"), strings("images"));
        if texts.is_empty() || images.is_empty() {
            return Err(Error::malformed(
                "golden.json",
                format!(
                    "case `{case}`: {} texts and {} images",
                    texts.len(),
                    images.len()
                ),
            ));
        }
        let (spec, seen) = (model.model.spec(), model.sees()?.spec());
        let max = spec.context;
        let texts = texts
            .into_iter()
            .map(|text| tokens(model, text, max))
            .collect::<Result<Vec<_>>>()?;
        let pad = model.text.tokenizer.pad().unwrap_or(0);
        let row = |t: &Tokens, pad: u32, one: Option<u32>| -> Vec<u32> {
            let own = t.ids.iter().map(|&id| one.unwrap_or(id));
            own.chain(std::iter::repeat(pad)).take(max).collect()
        };
        let ids = texts.iter().flat_map(|t| row(t, pad, None)).collect();
        let mask: Vec<u32> = texts.iter().flat_map(|t| row(t, 0, Some(1))).collect();
        for (name, values) in [("input_ids", ids), ("attention_mask", mask)] {
            let name = format!("{case}.{name}");
            if self.golden.info(&name).is_some() {
                self.ids(name, &values)?;
            }
        }
        let mut pictures = Vec::with_capacity(images.len());
        for file in images {
            let Medium::Image(image) = picture(&dir.join(file))? else {
                return Err(Error::invalid(format!("`{file}` is no picture")));
            };
            pictures.push(model.prepare(&image)?);
        }
        let mut pixels = Vec::new();
        for picture in &pictures {
            pixels.extend(picture.to_f32_vec()?);
        }
        let (count, side) = (pictures.len(), seen.side);
        self.floats(
            format!("{case}.pixel_values"),
            &[count, 3, side, side],
            pixels,
        )?;

        let run = EncoderRun::new(engine, model.clone());
        let (cancel, all) = (CancelToken::new(), usize::MAX);
        let hidden = run
            .run(&texts, Want::Hidden, all, &cancel, &mut |_, _| ())
            .await?;
        self.attended(
            format!("{case}.text_last_hidden"),
            &texts,
            max,
            &hidden.concat(),
        )?;
        let mut text_embeds = run
            .run(&texts, Want::Pooler, all, &cancel, &mut |_, _| ())
            .await?;
        let hidden = run
            .run_pictures(&pictures, Want::Hidden, all, &cancel, &mut |_, _| ())
            .await?;
        self.floats(
            format!("{case}.vision_last_hidden"),
            &[count, seen.tokens, seen.hidden],
            hidden.concat(),
        )?;
        let mut image_embeds = run
            .run_pictures(&pictures, Want::Pooler, all, &cancel, &mut |_, _| ())
            .await?;
        self.floats(
            format!("{case}.vision_pooled"),
            &[count, seen.dims],
            image_embeds.concat(),
        )?;
        let both = text_embeds.iter_mut().chain(&mut image_embeds);
        both.for_each(|v| normalize(v));
        for (name, rows) in [
            ("text_embeds", &text_embeds),
            ("image_embeds", &image_embeds),
        ] {
            self.floats(
                format!("{case}.{name}"),
                &[rows.len(), seen.dims],
                rows.concat(),
            )?;
        }
        let logits = image_embeds.iter().flat_map(|image| {
            let similarity = seen.similarity;
            text_embeds
                .iter()
                .map(move |text| cosine(image, text) * similarity.scale + similarity.bias)
        });
        let logits = logits.collect();
        self.floats(
            format!("{case}.logits_per_image"),
            &[count, texts.len()],
            logits,
        )
    }
}
