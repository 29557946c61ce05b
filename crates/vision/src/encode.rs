//! Pictures to PNG files: for looking at, and for handing on.

use crate::{Error, Image, Result};

impl Image {
    /// The picture as a PNG file, 8-bit RGB.
    ///
    /// # Errors
    /// `Limit` if a side exceeds what the format can say.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let side = |n: usize| {
            u32::try_from(n)
                .ok()
                .filter(|n| n.leading_zeros() > 0)
                .ok_or(Error::Limit {
                    what: "pixels of a PNG file's side",
                    max: (1 << 31) - 1,
                    got: n as u64,
                })
        };
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, side(self.width())?, side(self.height())?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let fault = |e: png::EncodingError| Error::invalid(format!("cannot write a PNG: {e}"));
        let mut writer = encoder.write_header().map_err(fault)?;
        writer.write_image_data(self.rgb()).map_err(fault)?;
        writer.finish().map_err(fault)?;
        Ok(out)
    }
}
