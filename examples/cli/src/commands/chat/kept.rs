//! `--prompt-cache`: what was read of a conversation, kept in a file for the next run.

use super::ChatArgs;
use crate::format;
use crate::ui::Ui;
use anyhow::{Context, Result};
use firelight_runtime::{Error, Session};
use pollster::block_on;

/// Goes on from the file, if it is there.
pub(super) fn open(args: &ChatArgs, session: &mut Session, ui: &Ui) -> Result<()> {
    let Some(path) = args.prompt_cache.as_deref().filter(|p| p.exists()) else {
        return Ok(());
    };
    match block_on(session.load_prompt_cache(path)) {
        Ok(tokens) => ui.note(&format!("[{tokens} tokens were read before: {}]", path.display())),
        Err(Error::Unsupported(_)) => ui.note(&format!(
            "[{} was made with another model, device or setting; all is read anew, and the file replaced]",
            path.display()
        )),
        Err(e) => {
            return Err(e).context("--prompt-cache names a file that cannot be used; give another name, or delete it");
        }
    }
    Ok(())
}

/// Keeps what has been read by now.
pub(super) fn close(args: &ChatArgs, session: &mut Session, ui: &Ui) -> Result<()> {
    let Some(path) = args.prompt_cache.as_deref() else {
        return Ok(());
    };
    match block_on(session.save_prompt_cache(path)) {
        Ok(0) => {}
        Ok(tokens) => {
            let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
            ui.note(&format!(
                "[{tokens} tokens kept in {}, {}]",
                path.display(),
                format::bytes(bytes)
            ));
        }
        Err(Error::Unsupported(why)) => ui.note(&format!("[not kept: {why}]")),
        Err(e) => return Err(e).context("cannot keep what was read"),
    }
    Ok(())
}
