//! Pictures in and out: maps over them, and trees on them.

use std::path::Path;

use image::imageops::{FilterType, crop_imm, resize};
use image::{Rgb, RgbImage};
use patchfield::attention::{DependencyTree, PatchGrid};

/// Pixels between pictures.
const GAP: u32 = 8;
/// The longer side of what is drawn, at least.
const DRAWN: u32 = 384;

/// Reads a picture; what is transparent is drawn on black.
pub fn load(path: &Path) -> Result<RgbImage, String> {
    let picture = image::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(picture.to_rgb8())
}

/// A sunset: a disc over water, whose reflection is broken by waves, and dark hills.
pub fn test_picture() -> RgbImage {
    RgbImage::from_fn(512, 352, |x, y| {
        let (x, y) = (x as f32, y as f32);
        let hill = 205.0 - 34.0 * (x * 0.011).sin() - 16.0 * (x * 0.031 + 1.0).sin();
        let sun = (x - 330.0).hypot(y - 120.0);
        let grain = ((x * 12.9898 + y * 78.233).sin() * 43_758.547).fract().abs();
        if y < hill && sun < 52.0 {
            Rgb([255, 226, (150.0 - sun) as u8])
        } else if y < hill {
            let t = y / 205.0;
            let glow = 60.0 * (-sun / 130.0).exp();
            Rgb([(40.0 + 150.0 * t + glow) as u8, (50.0 + 60.0 * t + glow) as u8, (110.0 - 30.0 * t) as u8])
        } else if y < 222.0 {
            Rgb([(18.0 + 26.0 * grain) as u8, (34.0 + 40.0 * grain) as u8, (22.0 + 18.0 * grain) as u8])
        } else {
            let wave = (0.5 * (y - 222.0).powf(0.8) + (x * 0.09 + y * 0.4).sin() * 1.5).sin();
            let path = (-((x - 330.0) / (26.0 + 0.25 * (y - 222.0))).powi(2)).exp() * (0.5 + 0.5 * wave);
            let base = 12.0 * wave;
            Rgb([
                (36.0 + base + 190.0 * path) as u8,
                (52.0 + base + 130.0 * path) as u8,
                (86.0 + base + 20.0 * path) as u8,
            ])
        }
    })
}

/// Whether a tree of so many patches is drawn in time.
pub fn check_patches(across: u32, down: u32) -> Result<(), String> {
    match u64::from(across) * u64::from(down) {
        0..=4096 => Ok(()),
        patches => Err(format!("{patches} patches: a tree of more than 4,096 takes too long")),
    }
}

/// Smaller, until the longer side is `size`, and cut to whole patches about the middle.
pub fn reduce(picture: &RgbImage, size: u32, patch: u32) -> Result<RgbImage, String> {
    let (width, height) = picture.dimensions();
    let factor = (f64::from(size) / f64::from(width.max(height))).min(1.0);
    let side = |n: u32| ((f64::from(n) * factor).round() as u32).max(1);
    let small = resize(picture, side(width), side(height), FilterType::CatmullRom);
    let whole = |n: u32| n / patch * patch;
    let (w, h) = (whole(small.width()), whole(small.height()));
    if w == 0 || h == 0 {
        return Err(format!("{} x {} pixels are less than one patch", small.width(), small.height()));
    }
    check_patches(w / patch, h / patch).map_err(|e| format!("{e}; try --patch or --size"))?;
    Ok(crop_imm(&small, (small.width() - w) / 2, (small.height() - h) / 2, w, h).to_image())
}

/// The middle of the picture at the size that a model takes.
pub fn fit(picture: &RgbImage, [height, width]: [u32; 2]) -> RgbImage {
    if picture.dimensions() == (width, height) {
        return picture.clone();
    }
    let (w, h) = picture.dimensions();
    let factor = (f64::from(w) / f64::from(width)).min(f64::from(h) / f64::from(height));
    let side = |n: u32, most: u32| ((f64::from(n) * factor).round() as u32).clamp(1, most);
    let (w, h) = (side(width, w), side(height, h));
    let middle = crop_imm(picture, (picture.width() - w) / 2, (picture.height() - h) / 2, w, h).to_image();
    resize(&middle, width, height, FilterType::CatmullRom)
}

/// `[channels, height, width]` from -1 to 1; one channel is lightness, and those beyond three repeat the last.
pub fn planes(picture: &RgbImage, channels: u32) -> Vec<f32> {
    let value = |pixel: &Rgb<u8>, c: u32| {
        let [r, g, b] = pixel.0.map(f32::from);
        let light = if channels < 3 { (r + g + b) / 3.0 } else { [r, g, b][(c as usize).min(2)] };
        light / 127.5 - 1.0
    };
    (0..channels).flat_map(|c| picture.pixels().map(move |pixel| value(pixel, c))).collect()
}

/// Small pictures by whole factors, to a size that can be looked at.
pub fn enlarge(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let factor = DRAWN.div_ceil(width.max(height));
    resize(picture, width * factor, height * factor, FilterType::Nearest)
}

/// Pictures of one size row by row, two of each four.
pub fn beside(pictures: &[RgbImage]) -> RgbImage {
    let Some(first) = pictures.first() else { return RgbImage::new(1, 1) };
    let (width, height) = (first.width() + GAP, first.height() + GAP);
    let columns = if pictures.len() > 4 { 4 } else { (pictures.len() as u32).min(2) };
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut all = RgbImage::from_pixel(columns * width - GAP, rows * height - GAP, Rgb([255; 3]));
    for (i, picture) in (0..).zip(pictures) {
        let (x, y) = (i64::from(i % columns * width), i64::from(i / columns * height));
        image::imageops::replace(&mut all, picture, x, y);
    }
    all
}

/// From black over violet and orange to light yellow.
fn heat(t: f32) -> [f32; 3] {
    const STOPS: [[f32; 3]; 5] = [
        [0.0, 0.0, 10.0],
        [85.0, 15.0, 110.0],
        [190.0, 55.0, 85.0],
        [250.0, 145.0, 40.0],
        [255.0, 250.0, 165.0],
    ];
    let at = t.clamp(0.0, 1.0) * 4.0;
    let i = (at as usize).min(3);
    let part = at - i as f32;
    [0, 1, 2].map(|c| STOPS[i][c] + part * (STOPS[i + 1][c] - STOPS[i][c]))
}

fn grey(pixel: &Rgb<u8>) -> f32 {
    let [r, g, b] = pixel.0.map(f32::from);
    0.3 * r + 0.6 * g + 0.1 * b
}

/// A map of the patches over the grey picture. The patch where it started keeps most of its own: it is framed, and
/// the others set the scale.
pub fn overlay(picture: &RgbImage, grid: PatchGrid, map: &[f32], start: Option<usize>) -> RgbImage {
    let (rows, columns) = (grid.height as usize, grid.width as usize);
    let mut others: Vec<f32> = (0..map.len()).filter(|&i| Some(i) != start).map(|i| map[i]).collect();
    others.sort_by(f32::total_cmp);
    let top =
        others.get((others.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(1.0).max(1e-12);
    // Roots bring out what is weak.
    let value = |y: usize, x: usize| (map[y * columns + x] / top).clamp(0.0, 1.0).sqrt();
    let (width, height) = picture.dimensions();
    let (side_y, side_x) = (height as f32 / rows as f32, width as f32 / columns as f32);
    let mut drawn = RgbImage::from_fn(width, height, |x, y| {
        let at = |p: u32, side: f32, n: usize| {
            let t = ((p as f32 + 0.5) / side - 0.5).clamp(0.0, (n - 1) as f32);
            (t as usize, (t as usize + 1).min(n - 1), t.fract())
        };
        let ((y0, y1, v), (x0, x1, u)) = (at(y, side_y, rows), at(x, side_x, columns));
        let row = |y: usize| value(y, x0) * (1.0 - u) + value(y, x1) * u;
        let t = row(y0) * (1.0 - v) + row(y1) * v;
        let light = grey(picture.get_pixel(x, y)) / 255.0;
        // Lit by the map, so that what is seen stays readable.
        Rgb(heat(t).map(|c| (c * (0.5 + 0.4 * light) + 60.0 * light).min(255.0) as u8))
    });
    if let Some(start) = start {
        let (y, x) = ((start / columns) as f32 * side_y, (start % columns) as f32 * side_x);
        for (grow, colour) in [(0.0, [255; 3]), (1.0, [255; 3]), (2.0, [0; 3])] {
            frame(&mut drawn, [y - grow, x - grow], [side_y + 2.0 * grow, side_x + 2.0 * grow], colour);
        }
    }
    drawn
}

fn frame(picture: &mut RgbImage, [y, x]: [f32; 2], [height, width]: [f32; 2], colour: [u8; 3]) {
    let corners = [[y, x], [y, x + width - 1.0], [y + height - 1.0, x + width - 1.0], [y + height - 1.0, x]];
    for i in 0..4 {
        line(picture, corners[i], corners[(i + 1) % 4], 0, colour);
    }
}

/// A line from place to place, `2 radius + 1` pixels wide.
fn line(picture: &mut RgbImage, from: [f32; 2], to: [f32; 2], radius: i32, colour: [u8; 3]) {
    let steps = (to[0] - from[0]).abs().max((to[1] - from[1]).abs()).ceil().max(1.0);
    for i in 0..=steps as u32 {
        let t = i as f32 / steps;
        let [y, x] = [0, 1].map(|c| (from[c] + t * (to[c] - from[c])).round() as i32);
        for (dy, dx) in (-radius..=radius).flat_map(|dy| (-radius..=radius).map(move |dx| (dy, dx))) {
            if let (Ok(x), Ok(y)) = (u32::try_from(x + dx), u32::try_from(y + dy)) {
                if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
                    *pixel = Rgb(colour);
                }
            }
        }
    }
}

const PARTS: [[u8; 3]; 8] = [
    [255, 215, 60],
    [80, 200, 255],
    [255, 110, 100],
    [120, 230, 120],
    [220, 140, 255],
    [255, 165, 60],
    [110, 150, 255],
    [240, 240, 240],
];

/// The part of each patch: the tree is cut at its weakest branches, as long as no part gets small.
fn parts(tree: &DependencyTree, mask: &[f32]) -> Vec<usize> {
    let n = tree.parents.len();
    let mut branches: Vec<usize> = (0..n).filter(|&i| i != tree.root).collect();
    let weight = |i: usize| mask[tree.parents[i] * n + i];
    branches.sort_by(|&a, &b| weight(a).total_cmp(&weight(b)));
    let mut is_cut = vec![false; n];
    is_cut[tree.root] = true;
    let head = |is_cut: &[bool], mut i: usize| {
        while !is_cut[i] {
            i = tree.parents[i];
        }
        i
    };
    let mut count = 1;
    for i in branches {
        if count == PARTS.len() {
            break;
        }
        let old = head(&is_cut, i);
        let size = |is_cut: &[bool], of: usize| (0..n).filter(|&j| head(is_cut, j) == of).count();
        is_cut[i] = true;
        let smallest = (n / 25).max(2);
        if size(&is_cut, i) < smallest || size(&is_cut, old) < smallest {
            is_cut[i] = false;
        } else {
            count += 1;
        }
    }
    let heads: Vec<usize> = (0..n).filter(|&i| is_cut[i]).collect();
    (0..n).map(|i| heads.iter().position(|&h| h == head(&is_cut, i)).unwrap_or(0)).collect()
}

/// The tree over the darkened picture: a line from each patch to its parent, parts in colours, the root framed.
pub fn tree(picture: &RgbImage, grid: PatchGrid, tree: &DependencyTree, mask: &[f32]) -> RgbImage {
    let picture = resize(picture, picture.width() * 2, picture.height() * 2, FilterType::CatmullRom);
    let (width, height) = picture.dimensions();
    let mut drawn = RgbImage::from_fn(width, height, |x, y| {
        let pixel = picture.get_pixel(x, y);
        let light = grey(pixel);
        Rgb(pixel.0.map(|c| (0.55 * (0.5 * f32::from(c) + 0.5 * light)) as u8))
    });
    let (side_y, side_x) = (height as f32 / grid.height as f32, width as f32 / grid.width as f32);
    let columns = grid.width as usize;
    let place = |i: usize| [((i / columns) as f32 + 0.5) * side_y, ((i % columns) as f32 + 0.5) * side_x];
    let part = parts(tree, mask);
    // Branches between parts first, and thin: the parts lie over them.
    for between in [true, false] {
        for (i, &parent) in tree.parents.iter().enumerate() {
            if (part[i] != part[parent]) == between {
                let colour = if between { [130; 3] } else { PARTS[part[i] % PARTS.len()] };
                line(&mut drawn, place(i), place(parent), i32::from(!between), colour);
            }
        }
    }
    for (i, &of) in part.iter().enumerate() {
        line(&mut drawn, place(i), place(i), 3, PARTS[of % PARTS.len()]);
    }
    let [y, x] = place(tree.root);
    for grow in 0..3 {
        let side = 13.0 + 2.0 * grow as f32;
        frame(&mut drawn, [y - side / 2.0, x - side / 2.0], [side; 2], [255; 3]);
    }
    drawn
}
