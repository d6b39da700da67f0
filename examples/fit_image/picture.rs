//! Reading and writing pictures, and what is made of them: error map, detail, bicubic.

use std::path::Path;

use image::{DynamicImage, ImageBuffer, ImageDecoder as _, Luma, LumaA, Rgb, Rgba};
use patchfield::models::Picture;

/// In which space values are fitted and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// The values as stored (sRGB-encoded): what published PSNR figures compare.
    Srgb,
    /// Decoded to linear light; alpha stays as it is.
    Linear,
}

fn decode(v: f32) -> f32 {
    if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
}

fn encode(v: f32) -> f32 {
    if v <= 0.003_130_8 { v * 12.92 } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 }
}

/// Colour channels (the last of 2 or 4 is alpha) through `f`.
fn map_colour(picture: &mut Picture, f: impl Fn(f32) -> f32) {
    let channels = picture.channels as usize;
    let colours = if channels.is_multiple_of(2) { channels - 1 } else { channels };
    for pixel in picture.data.chunks_mut(channels) {
        for v in &mut pixel[..colours] {
            *v = f(*v);
        }
    }
}

/// Bytes of a decoded picture; as f32 it takes up to four times as many.
const LARGEST: u64 = 1 << 30;

/// Reads a PNG or JPEG of 8 or 16 bits, grey, grey with alpha, RGB or RGBA.
pub fn load(path: &Path, colour: Colour) -> Result<(Picture, String), String> {
    let refuse = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut reader = image::ImageReader::open(path)
        .and_then(image::ImageReader::with_guessed_format)
        .map_err(|e| refuse(&e))?;
    // The decoder's own limits say neither the size nor the limit.
    reader.no_limits();
    let decoder = reader.into_decoder().map_err(|e| refuse(&e))?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > LARGEST {
        let limit = LARGEST >> 30;
        return Err(refuse(&format!(
            "{width} x {height} pixels, decoded, are over the limit of {limit} GiB"
        )));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(|e| refuse(&e))?;
    let kind = format!("{:?}", image.color());
    let has_alpha = image.color().has_alpha();
    let (channels, data): (u32, Vec<f32>) = match (image.color().has_color(), has_alpha) {
        (false, false) => (1, scale(image.into_luma16().into_raw())),
        (false, true) => (2, scale(image.into_luma_alpha16().into_raw())),
        (true, false) => (3, scale(image.into_rgb16().into_raw())),
        (true, true) => (4, scale(image.into_rgba16().into_raw())),
    };
    let mut picture = Picture::new(width, height, channels, data).map_err(|e| refuse(&e))?;
    if colour == Colour::Linear {
        map_colour(&mut picture, decode);
    }
    Ok((picture, kind))
}

fn scale(raw: Vec<u16>) -> Vec<f32> {
    raw.into_iter().map(|v| f32::from(v) / 65535.0).collect()
}

/// Writes an 8-bit PNG.
pub fn save(picture: &Picture, colour: Colour, path: &Path) -> Result<(), String> {
    let mut picture = picture.clone();
    for v in &mut picture.data {
        *v = v.clamp(0.0, 1.0);
    }
    if colour == Colour::Linear {
        map_colour(&mut picture, encode);
    }
    let bytes: Vec<u8> = picture.data.iter().map(|v| (v * 255.0 + 0.5) as u8).collect();
    let (w, h) = (picture.width, picture.height);
    let image = match picture.channels {
        1 => ImageBuffer::<Luma<u8>, _>::from_raw(w, h, bytes).map(DynamicImage::from),
        2 => ImageBuffer::<LumaA<u8>, _>::from_raw(w, h, bytes).map(DynamicImage::from),
        3 => ImageBuffer::<Rgb<u8>, _>::from_raw(w, h, bytes).map(DynamicImage::from),
        _ => ImageBuffer::<Rgba<u8>, _>::from_raw(w, h, bytes).map(DynamicImage::from),
    };
    let image = image.ok_or("the picture has the wrong number of values")?;
    // Into memory first: what a buffered writer cannot write when it is dropped, it does not tell.
    let mut png = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|e| e.to_string())
        .and_then(|()| std::fs::write(path, png.into_inner()).map_err(|e| e.to_string()))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// The absolute error, averaged over the channels, ten times as bright: black is exact, white is 0.1 or more.
pub fn error_map(a: &Picture, b: &Picture) -> Picture {
    let channels = a.channels as usize;
    let data = a
        .data
        .chunks(channels)
        .zip(b.data.chunks(channels))
        .map(|(p, q)| {
            let sum: f32 = p.iter().zip(q).map(|(p, q)| (p - q.clamp(0.0, 1.0)).abs()).sum();
            10.0 * sum / channels as f32
        })
        .collect();
    Picture { width: a.width, height: a.height, channels: 1, data }
}

/// The corner of the `side` x `side` window with the most gradient energy.
pub fn most_detail(picture: &Picture, side: u32) -> (u32, u32) {
    let (w, h) = (picture.width as usize, picture.height as usize);
    let channels = picture.channels as usize;
    let at = |x: usize, y: usize, c: usize| f64::from(picture.data[(y * w + x) * channels + c]);
    // A summed-area table of squared differences.
    let mut table = vec![0.0; (w + 1) * (h + 1)];
    for y in 0..h {
        for x in 0..w {
            let mut energy = 0.0;
            for c in 0..channels {
                let dx = at((x + 1).min(w - 1), y, c) - at(x, y, c);
                let dy = at(x, (y + 1).min(h - 1), c) - at(x, y, c);
                energy += dx * dx + dy * dy;
            }
            table[(y + 1) * (w + 1) + x + 1] =
                energy + table[y * (w + 1) + x + 1] + table[(y + 1) * (w + 1) + x] - table[y * (w + 1) + x];
        }
    }
    let side = side as usize;
    let mut best = (f64::MIN, (0, 0));
    for y in (0..=h.saturating_sub(side)).step_by(4) {
        for x in (0..=w.saturating_sub(side)).step_by(4) {
            let (x1, y1) = ((x + side).min(w), (y + side).min(h));
            let energy = table[y1 * (w + 1) + x1] - table[y * (w + 1) + x1] - table[y1 * (w + 1) + x]
                + table[y * (w + 1) + x];
            if energy > best.0 {
                best = (energy, (x as u32, y as u32));
            }
        }
    }
    best.1
}

/// Bicubic magnification (Catmull-Rom) of a window; edges are repeated.
pub fn bicubic(picture: &Picture, corner: (u32, u32), size: (u32, u32), zoom: u32) -> Picture {
    let channels = picture.channels;
    let weights = |t: f32| {
        let (t2, t3) = (t * t, t * t * t);
        [
            0.5 * (-t + 2.0 * t2 - t3),
            0.5 * (2.0 - 5.0 * t2 + 3.0 * t3),
            0.5 * (t + 4.0 * t2 - 3.0 * t3),
            0.5 * (t3 - t2),
        ]
    };
    let at = |x: i64, y: i64, c: u32| {
        let x = x.clamp(0, i64::from(picture.width) - 1) as usize;
        let y = y.clamp(0, i64::from(picture.height) - 1) as usize;
        picture.data[(y * picture.width as usize + x) * channels as usize + c as usize]
    };
    let (width, height) = (size.0 * zoom, size.1 * zoom);
    let mut data = Vec::with_capacity((width * height * channels) as usize);
    for y in 0..height {
        let v = corner.1 as f32 + (y as f32 + 0.5) / zoom as f32 - 0.5;
        let wy = weights(v - v.floor());
        for x in 0..width {
            let u = corner.0 as f32 + (x as f32 + 0.5) / zoom as f32 - 0.5;
            let wx = weights(u - u.floor());
            for c in 0..channels {
                let mut sum = 0.0;
                for (j, wy) in wy.iter().enumerate() {
                    for (i, wx) in wx.iter().enumerate() {
                        sum +=
                            wx * wy * at(u.floor() as i64 + i as i64 - 1, v.floor() as i64 + j as i64 - 1, c);
                    }
                }
                data.push(sum);
            }
        }
    }
    Picture { width, height, channels, data }
}

/// Two pictures of the same height, side by side with a white line between.
pub fn beside(left: &Picture, right: &Picture) -> Picture {
    const LINE: usize = 4;
    let channels = left.channels as usize;
    let mut data = Vec::new();
    let rows = left
        .data
        .chunks(left.width as usize * channels)
        .zip(right.data.chunks(right.width as usize * channels));
    for (l, r) in rows {
        data.extend_from_slice(l);
        data.extend(std::iter::repeat_n(1.0, LINE * channels));
        data.extend_from_slice(r);
    }
    Picture {
        width: left.width + right.width + LINE as u32,
        height: left.height,
        channels: left.channels,
        data,
    }
}

/// A picture made by computation: text-like strokes, a smooth gradient, rings of rising frequency,
/// and noise. Nothing needs to be downloaded.
pub fn test_picture() -> Picture {
    let (width, height) = (384u32, 256u32);
    let hash = |x: u32, y: u32| {
        let mut h = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca77);
        h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
        h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
        (h ^ (h >> 15)) as f32 / u32::MAX as f32
    };
    let mut data = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
            let pixel = match (u < 0.5, v < 0.5) {
                // Lines of glyphs of 5 x 7 dots, ink where a hash says so.
                (true, true) => {
                    let (column, row) = (x / 6, y / 9);
                    let inside = x % 6 < 5 && y % 9 < 7 && hash(column, row + 77) > 0.15;
                    let ink = inside && hash(x % 6 + 8 * (hash(column, row) * 40.0) as u32, y % 9) > 0.5;
                    if ink { [0.08, 0.07, 0.1] } else { [0.97, 0.95, 0.9] }
                }
                (false, true) => [u * 2.0 - 1.0, v * 2.0, 1.0 - v],
                (true, false) => {
                    let (dx, dy) = (u * 2.0 - 0.5, (v * 2.0 - 1.5) * height as f32 / width as f32);
                    let ring = 0.5 + 0.5 * (600.0 * (dx * dx + dy * dy)).sin();
                    [ring, 0.8 * ring, 1.0 - ring]
                }
                (false, false) => {
                    let n = hash(x, y);
                    [0.35 + 0.3 * n, 0.4 + 0.2 * n, 0.5 + 0.1 * hash(y, x)]
                }
            };
            data.extend(pixel);
        }
    }
    Picture { width, height, channels: 3, data }
}
