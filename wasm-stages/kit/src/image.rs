//! Pictures: checking them, and bringing them to RGB.

use crate::{Error, Image, Result};

impl Image {
    /// A picture; `pixels` holds `width * height * channels` bytes, `channels` is 1, 3 or 4.
    pub fn new(width: u32, height: u32, channels: u8, pixels: Vec<u8>) -> Result<Self> {
        let image = Self { width, height, channels, pixels };
        image.check()?;
        Ok(image)
    }

    /// Whether size and pixels agree. A picture that comes from elsewhere is checked before its size is believed.
    pub fn check(&self) -> Result<()> {
        let Self { width, height, channels, ref pixels } = *self;
        if !matches!(channels, 1 | 3 | 4) {
            return Err(Error::invalid_input(format!(
                "an image of {channels} channels: 1, 3 or 4 are possible"
            )));
        }
        if width == 0 || height == 0 {
            return Err(Error::invalid_input(format!(
                "an image of {width} x {height} pixels has nothing in it"
            )));
        }
        if u128::from(width) * u128::from(height) * u128::from(channels) != pixels.len() as u128 {
            return Err(Error::invalid_input(format!(
                "an image of {width} x {height} x {channels} cannot hold {} bytes",
                pixels.len()
            )));
        }
        Ok(())
    }

    /// The same picture in RGB, checked: grey is repeated, alpha is dropped. Without a copy when it is RGB already.
    pub fn into_rgb(self) -> Result<Self> {
        self.check()?;
        let pixels = match self.channels {
            1 => self.pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
            4 => self.pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
            _ => self.pixels,
        };
        Ok(Self { channels: 3, pixels, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_lie_are_refused() {
        assert!(Image::new(2, 2, 3, vec![0; 12]).is_ok());
        for (width, height, channels, bytes) in
            [(2, 2, 3, 11), (0, 2, 3, 0), (2, 2, 2, 8), (u32::MAX, u32::MAX, 4, 4)]
        {
            assert_eq!(
                Image::new(width, height, channels, vec![0; bytes]).unwrap_err().code,
                "invalid-input"
            );
        }
    }

    #[test]
    fn everything_becomes_rgb() {
        let grey = Image::new(2, 1, 1, vec![7, 9]).unwrap().into_rgb().unwrap();
        assert_eq!(grey.pixels, [7, 7, 7, 9, 9, 9]);
        let rgba = Image::new(1, 1, 4, vec![1, 2, 3, 0]).unwrap().into_rgb().unwrap();
        assert_eq!((rgba.channels, rgba.pixels), (3, vec![1, 2, 3]));
    }
}
