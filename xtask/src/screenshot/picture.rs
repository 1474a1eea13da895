//! PNG files that weigh little.

use std::collections::HashMap;
use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Filter};

type Colour = [u8; 3];

/// The same picture with the 256 colours that it has most of, each other one replaced by the nearest of
/// those: a page has few, and the rest are the edges of letters.
pub(crate) fn smaller(picture: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Decoder::new(Cursor::new(picture)).read_info()?;
    let mut pixels = vec![
        0;
        reader
            .output_buffer_size()
            .context("a picture without end")?
    ];
    let info = reader.next_frame(&mut pixels)?;
    let samples = info.color_type.samples();
    ensure!(
        info.bit_depth == BitDepth::Eight && samples >= 3,
        "a picture of another kind: {info:?}"
    );
    let colours: Vec<Colour> = pixels[..info.buffer_size()]
        .chunks_exact(samples)
        .map(|pixel| [pixel[0], pixel[1], pixel[2]])
        .collect();

    let mut counts: HashMap<Colour, usize> = HashMap::new();
    for colour in &colours {
        *counts.entry(*colour).or_default() += 1;
    }
    let mut palette: Vec<Colour> = counts.keys().copied().collect();
    palette.sort_by_key(|colour| (std::cmp::Reverse(counts[colour]), *colour));
    palette.truncate(256);
    let nearest: HashMap<Colour, u8> = counts
        .keys()
        .map(|colour| {
            let at = (0..=u8::MAX)
                .zip(&palette)
                .min_by_key(|(_, other)| distance(colour, other));
            (*colour, at.map_or(0, |(at, _)| at))
        })
        .collect();

    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, info.width, info.height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(palette.concat());
    encoder.set_compression(Compression::High);
    // Neighbouring numbers of a palette have nothing in common.
    encoder.set_filter(Filter::NoFilter);
    let indices: Vec<u8> = colours.iter().map(|colour| nearest[colour]).collect();
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&indices)?;
    writer.finish()?;
    Ok(out)
}

fn distance(one: &Colour, other: &Colour) -> u32 {
    let square = |(a, b): (&u8, &u8)| u32::from(a.abs_diff(*b)).pow(2);
    one.iter().zip(other).map(square).sum()
}
