//! What a file is, told by its first bytes, and the reader of that container.
//!
//! Told here rather than by symphonia's probe, which searches a megabyte of whatever it is given for something that
//! looks like a frame of MP3, and finds it in pictures.

use std::io::Cursor;

use pajamas_stage::{Error, Result};
use symphonia::core::errors::Error as Failure;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::default::formats::{
    AdtsReader, AiffReader, CafReader, FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader, WavReader,
};

/// A container that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Wav,
    Aiff,
    Caf,
    Flac,
    Mp3,
    Adts,
    Mp4,
    Ogg,
    Matroska,
}

/// For the help of refusals.
const KNOWN: &str = "WAV, AIFF, CAF, FLAC, MP3, AAC, M4A, MP4, Ogg (Vorbis, Opus, FLAC), WebM or Matroska";

/// What else people send, by its first bytes: named in the refusal.
const OTHERS: [(&[u8], &str); 12] = [
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x30\x26\xb2\x75", "a Windows Media file"),
    (b"#!AMR", "an AMR recording"),
    (b"MThd", "a MIDI file"),
    (b"wvpk", "a WavPack file"),
    (b"MAC ", "a Monkey's Audio file"),
    (b".snd", "a Sun audio file"),
];

impl Format {
    /// The name used in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wav => "WAV",
            Self::Aiff => "AIFF",
            Self::Caf => "CAF",
            Self::Flac => "FLAC",
            Self::Mp3 => "MP3",
            Self::Adts => "AAC",
            Self::Mp4 => "MP4",
            Self::Ogg => "Ogg",
            Self::Matroska => "Matroska",
        }
    }

    /// What the file is.
    ///
    /// Errors: `audio-empty`, `audio-unsupported`.
    pub fn of(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::new("audio-empty", "an empty file has no sound in it"));
        }
        let at =
            |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        let sync = |mask: u8, value: u8| matches!(bytes, [0xff, second, third, ..] if second & mask == value && third & 0xf0 != 0xf0);
        match bytes {
            _ if at(0, b"RIFF") && at(8, b"WAVE") => Ok(Self::Wav),
            _ if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) => Ok(Self::Aiff),
            _ if at(0, b"caff") => Ok(Self::Caf),
            _ if at(0, b"fLaC") => Ok(Self::Flac),
            _ if at(0, b"OggS") => Ok(Self::Ogg),
            _ if at(0, b"\x1a\x45\xdf\xa3") => Ok(Self::Matroska),
            _ if at(4, b"ftyp") || at(4, b"styp") || at(4, b"moov") => Ok(Self::Mp4),
            // MPEG audio: eleven bits of sync; layer 0 is AAC, layer 3 is written 01.
            _ if sync(0xf6, 0xf0) => Ok(Self::Adts),
            _ if sync(0xe6, 0xe2) => Ok(Self::Mp3),
            _ => Err(unknown(bytes)),
        }
    }

    /// Whether recordings come without a length: streamed WAV, and Matroska as browsers write it.
    pub const fn may_be_endless(self) -> bool {
        matches!(self, Self::Wav | Self::Matroska)
    }

    /// The reader of the container.
    pub fn open(self, bytes: Vec<u8>) -> Result<Box<dyn FormatReader>, Failure> {
        let source =
            MediaSourceStream::new(Box::new(Cursor::new(bytes)), MediaSourceStreamOptions::default());
        let options = FormatOptions::default();
        Ok(match self {
            Self::Wav => Box::new(WavReader::try_new(source, options)?),
            Self::Aiff => Box::new(AiffReader::try_new(source, options)?),
            Self::Caf => Box::new(CafReader::try_new(source, options)?),
            Self::Flac => Box::new(FlacReader::try_new(source, options)?),
            Self::Mp3 => Box::new(MpaReader::try_new(source, options)?),
            Self::Adts => Box::new(AdtsReader::try_new(source, options)?),
            Self::Mp4 => Box::new(IsoMp4Reader::try_new(source, options)?),
            Self::Ogg => Box::new(OggReader::try_new(source, options)?),
            Self::Matroska => Box::new(MkvReader::try_new(source, options)?),
        })
    }
}

/// How many bytes of ID3 tags stand before the sound.
pub fn tags(bytes: &[u8]) -> usize {
    let mut skipped = 0;
    while let [b'I', b'D', b'3', _, _, flags, size @ ..] = &bytes[skipped..] {
        let Some(size) = size.first_chunk::<4>() else { break };
        // Four bytes of seven bits; a footer repeats the header of ten bytes.
        let size = size.iter().fold(0usize, |n, b| n << 7 | usize::from(b & 0x7f));
        let footer = if flags & 0x10 != 0 { 10 } else { 0 };
        skipped = bytes.len().min(skipped + 10 + size + footer);
    }
    skipped
}

fn unknown(bytes: &[u8]) -> Error {
    let what = match OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, name)) => (*name).to_owned(),
        None => {
            let start: Vec<_> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
            format!("a file of no known sound format (it begins with {})", start.join(" "))
        }
    };
    Error::new("audio-unsupported", format!("{what} cannot be decoded as sound"))
        .with_help(format!("send {KNOWN}, whatever the file's name says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_what_they_begin_with() {
        for (bytes, want) in [
            (&b"RIFF\0\0\0\0WAVEfmt "[..], Format::Wav),
            (b"FORM\0\0\0\0AIFCxxxx", Format::Aiff),
            (b"\0\0\0\x20ftypM4A ", Format::Mp4),
            (b"\xff\xfb\x90\x44", Format::Mp3),
            (b"\xff\xf3\x90\x44", Format::Mp3),
            (b"\xff\xf1\x50\x80", Format::Adts),
        ] {
            assert_eq!(Format::of(bytes), Ok(want));
        }
    }

    #[test]
    fn what_is_no_sound_is_named() {
        let refused = |bytes: &[u8]| Format::of(bytes).unwrap_err();
        let picture = refused(b"\xff\xd8\xff\xe0\0\x10JFIF");
        assert_eq!(picture.code, "audio-unsupported");
        assert!(picture.message.contains("JPEG"), "{}", picture.message);
        assert!(refused(b"RIFF\0\0\0\0WEBPVP8 ").message.contains("52 49 46 46"));
        assert_eq!(refused(b"hello").code, "audio-unsupported");
        assert_eq!(refused(b"").code, "audio-empty");
    }

    #[test]
    fn tags_are_skipped_however_long_they_claim_to_be() {
        assert_eq!(tags(b"\xff\xfb\x90\x44"), 0);
        assert_eq!(tags(b"ID3\x04\0\0\0\0\0\x02ab\xff\xfb"), 12);
        assert_eq!(tags(b"ID3\x04\0\x10\0\0\0\x01aID3.......\xff"), 21);
        assert_eq!(tags(b"ID3\x04\0\0\x7f\x7f\x7f\x7f.."), 12);
        assert_eq!(tags(b"ID3\x04"), 0);
    }
}
