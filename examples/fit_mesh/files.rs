//! OBJ and PLY: the positions and the faces, nothing else. Errors name the line or the element.

use std::fmt::Write as _;
use std::path::Path;

use patchfield::models::Mesh;

/// Reads an OBJ or a PLY (ASCII or binary), told apart by the first bytes. Faces of more than three
/// corners become fans.
pub fn load(path: &Path) -> Result<Mesh, String> {
    let refuse = |message: String| format!("{}: {message}", path.display());
    let bytes = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
    let parsed = if bytes.starts_with(b"ply") { read_ply(&bytes) } else { read_obj(&bytes) };
    let (vertices, triangles) = parsed.map_err(refuse)?;
    Mesh::new(vertices, triangles).map_err(|e| refuse(e.to_string()))
}

/// Writes an OBJ or a binary PLY, by the extension.
pub fn save(mesh: &Mesh, path: &Path) -> Result<(), String> {
    let ply = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ply"));
    let bytes = if ply { write_ply(mesh) } else { write_obj(mesh) };
    std::fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

type Parsed = Result<(Vec<[f32; 3]>, Vec<[u32; 3]>), String>;

/// A face's corners as triangles around the first.
fn fan(corners: &[u32], triangles: &mut Vec<[u32; 3]>) {
    triangles.extend(corners.windows(2).skip(1).map(|pair| [corners[0], pair[0], pair[1]]));
}

fn read_obj(bytes: &[u8]) -> Parsed {
    let (mut vertices, mut triangles) = (Vec::new(), Vec::new());
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
        // Names and comments may be in any encoding.
        let line = String::from_utf8_lossy(line);
        let refuse = |what: &str| format!("line {}: {what}: {}", number + 1, line.trim());
        let mut words = line.split_whitespace();
        match words.next() {
            Some("v") => {
                let mut next = || words.next().and_then(|word| word.parse().ok());
                let all = (next(), next(), next());
                let (Some(x), Some(y), Some(z)) = all else {
                    return Err(refuse("a vertex needs three numbers"));
                };
                vertices.push([x, y, z]);
            }
            Some("f") => {
                let corner = |word: &str| {
                    let index: i64 = word.split('/').next()?.parse().ok()?;
                    // Counted from 1, or back from the last.
                    let index = if index < 0 { vertices.len() as i64 + index } else { index - 1 };
                    u32::try_from(index).ok()
                };
                let corners: Option<Vec<u32>> = words.map(corner).collect();
                match corners {
                    Some(corners) if corners.len() >= 3 => fan(&corners, &mut triangles),
                    _ => return Err(refuse("a face needs three vertices or more, counted from 1")),
                }
            }
            _ => {}
        }
    }
    Ok((vertices, triangles))
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Ascii,
    Little,
    Big,
}

/// A type of PLY: its bytes, and whether it is signed or a float.
#[derive(Clone, Copy)]
struct Number {
    bytes: usize,
    float: bool,
    signed: bool,
}

impl Number {
    fn named(name: &str) -> Result<Self, String> {
        let (bytes, float, signed) = match name {
            "char" | "int8" => (1, false, true),
            "uchar" | "uint8" => (1, false, false),
            "short" | "int16" => (2, false, true),
            "ushort" | "uint16" => (2, false, false),
            "int" | "int32" => (4, false, true),
            "uint" | "uint32" => (4, false, false),
            "float" | "float32" => (4, true, true),
            "double" | "float64" => (8, true, true),
            _ => return Err(format!("there is no type `{name}`")),
        };
        Ok(Self { bytes, float, signed })
    }
}

struct Property {
    name: String,
    number: Number,
    /// The type of the length, of a list.
    length: Option<Number>,
}

struct Element {
    name: String,
    count: usize,
    properties: Vec<Property>,
}

/// The numbers after the header, one by one.
struct Body<'a> {
    format: Format,
    rest: &'a [u8],
}

impl Body<'_> {
    fn next(&mut self, number: Number) -> Result<f64, String> {
        if self.format == Format::Ascii {
            let text = self.rest.trim_ascii_start();
            let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            self.rest = rest;
            let word = std::str::from_utf8(word).map_err(|e| e.to_string())?;
            return match word {
                "" => Err("the file ends too early".into()),
                _ => word.parse().map_err(|_| format!("`{word}` is no number")),
            };
        }
        if self.rest.len() < number.bytes {
            return Err("the file ends too early".into());
        }
        let (bytes, rest) = self.rest.split_at(number.bytes);
        self.rest = rest;
        let mut word = [0; 8];
        word[..number.bytes].copy_from_slice(bytes);
        if self.format == Format::Big {
            word[..number.bytes].reverse();
        }
        let bits = u64::from_le_bytes(word);
        let unused = 64 - 8 * number.bytes as u32;
        Ok(match (number.float, number.signed) {
            (true, _) if number.bytes == 4 => f32::from_bits(bits as u32).into(),
            (true, _) => f64::from_bits(bits),
            (false, true) => ((bits << unused) as i64 >> unused) as f64,
            (false, false) => bits as f64,
        })
    }
}

fn read_header(bytes: &[u8]) -> Result<(Vec<Element>, Body<'_>), String> {
    let mut format = None;
    let mut elements: Vec<Element> = Vec::new();
    let mut rest = bytes;
    for number in 1.. {
        let end = rest.iter().position(|&b| b == b'\n').ok_or("the header has no `end_header`")?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let refuse = |what: String| format!("line {number}: {what}: {}", line.trim());
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["format", name, _] => {
                format = Some(match name {
                    "ascii" => Format::Ascii,
                    "binary_little_endian" => Format::Little,
                    "binary_big_endian" => Format::Big,
                    _ => return Err(refuse("there is no such format".into())),
                });
            }
            ["element", name, count] => {
                let count = count.parse().map_err(|_| refuse("the count is no number".into()))?;
                elements.push(Element { name: name.into(), count, properties: Vec::new() });
            }
            ["property", ref kind @ .., name] => {
                let named = |name: &str| Number::named(name).map_err(refuse);
                let (length, number) = match *kind {
                    ["list", length, number] => (Some(named(length)?), named(number)?),
                    [number] => (None, named(number)?),
                    _ => return Err(refuse("a property has a type and a name".into())),
                };
                let element = elements.last_mut().ok_or_else(|| refuse("belongs to no element".into()))?;
                element.properties.push(Property { name: name.into(), number, length });
            }
            ["end_header"] => break,
            _ => {}
        }
    }
    Ok((elements, Body { format: format.ok_or("the header names no format")?, rest }))
}

fn read_ply(bytes: &[u8]) -> Parsed {
    let (elements, mut body) = read_header(bytes)?;
    let (mut vertices, mut triangles) = (Vec::new(), Vec::new());
    for element in &elements {
        if element.count > 0 && element.properties.is_empty() {
            return Err(format!("{} of {}, which have no properties", element.count, element.name));
        }
        for i in 0..element.count {
            let refuse = |e: String| format!("{} {i} of {}: {e}", element.name, element.count);
            let mut vertex = [f32::NAN; 3];
            for property in &element.properties {
                let count = match property.length {
                    Some(length) => body.next(length).map_err(refuse)? as usize,
                    None => 1,
                };
                let mut corners = Vec::new();
                for _ in 0..count {
                    let value = body.next(property.number).map_err(refuse)?;
                    let axis = ["x", "y", "z"].iter().position(|&axis| axis == property.name);
                    if let ("vertex", Some(axis)) = (element.name.as_str(), axis) {
                        vertex[axis] = value as f32;
                    }
                    corners.push(value);
                }
                let indices = matches!(property.name.as_str(), "vertex_indices" | "vertex_index");
                if element.name == "face" && indices {
                    if corners.len() < 3 {
                        return Err(refuse(format!("a face of {} vertices", corners.len())));
                    }
                    let index = |value: f64| {
                        let is_index = value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value);
                        if is_index { Ok(value as u32) } else { Err(refuse(format!("{value} is no vertex"))) }
                    };
                    let corners: Vec<u32> = corners.into_iter().map(index).collect::<Result<_, _>>()?;
                    fan(&corners, &mut triangles);
                }
            }
            if element.name == "vertex" {
                vertices.push(vertex);
            }
        }
    }
    Ok((vertices, triangles))
}

fn write_obj(mesh: &Mesh) -> Vec<u8> {
    let mut text = String::new();
    for [x, y, z] in &mesh.vertices {
        let _ = writeln!(text, "v {x} {y} {z}");
    }
    for [a, b, c] in mesh.triangles.iter().map(|t| t.map(|i| u64::from(i) + 1)) {
        let _ = writeln!(text, "f {a} {b} {c}");
    }
    text.into_bytes()
}

fn write_ply(mesh: &Mesh) -> Vec<u8> {
    let mut bytes = format!(
        "ply\nformat binary_little_endian 1.0\nelement vertex {}\n\
         property float x\nproperty float y\nproperty float z\nelement face {}\nproperty list uchar uint vertex_indices\nend_header\n",
        mesh.vertices.len(),
        mesh.triangles.len()
    )
    .into_bytes();
    bytes.extend(mesh.vertices.iter().flatten().flat_map(|x| x.to_le_bytes()));
    for triangle in &mesh.triangles {
        bytes.push(3);
        bytes.extend(triangle.iter().flat_map(|i| i.to_le_bytes()));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mesh = Mesh::torus(7, 5);
        let parsed = |parsed: Parsed| parsed.map(|(vertices, triangles)| Mesh { vertices, triangles });
        assert_eq!(parsed(read_obj(&write_obj(&mesh))), Ok(mesh.clone()));
        assert_eq!(parsed(read_ply(&write_ply(&mesh))), Ok(mesh.clone()));
        // The same with the bytes of each number turned round.
        let little = write_ply(&mesh);
        let header = little.windows(11).position(|w| w == b"end_header\n").unwrap() + 11;
        let mut big = String::from_utf8_lossy(&little[..header]).replace("little", "big").into_bytes();
        let vertices = header + 12 * mesh.vertices.len();
        big.extend(little[header..vertices].chunks(4).flat_map(|w| w.iter().rev()));
        for face in little[vertices..].chunks(13) {
            big.push(face[0]);
            big.extend(face[1..].chunks(4).flat_map(|w| w.iter().rev()));
        }
        assert_eq!(parsed(read_ply(&big)), Ok(mesh));
    }

    #[test]
    fn polygons_negative_indices_and_other_properties() {
        let obj = "# a square\nvn 0 0 1\nv 0 0 0 0.5\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4//1 2/1 3/2/1 4\n";
        let (vertices, triangles) = read_obj(obj.as_bytes()).unwrap();
        assert_eq!((vertices.len(), triangles), (4, vec![[0, 1, 2], [0, 2, 3]]));
        let ply = "ply\nformat ascii 1.0\ncomment c\nelement vertex 3\nproperty double x\nproperty uchar red\n\
                   property float y\nproperty float z\nelement face 1\nproperty list uchar int vertex_index\n\
                   end_header\n1 9 2 3\n4 9 5 6\n7 9 8 9\n3 0 1 2\n";
        let (vertices, triangles) = read_ply(ply.as_bytes()).unwrap();
        assert_eq!((vertices[1], triangles), ([4.0, 5.0, 6.0], vec![[0, 1, 2]]));
    }

    #[test]
    fn errors_say_where() {
        let says = |parsed: Parsed, word: &str| {
            let error = parsed.unwrap_err();
            assert!(error.contains(word), "{error}");
        };
        says(read_obj(b"v 0 0 0\nv 0 zero 0\n"), "line 2");
        says(read_obj(b"v 0 0 0\nf 1 2\n"), "line 2");
        says(read_obj(b"f 0 1 2\n"), "counted from 1");
        let header =
            "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n";
        says(read_ply(header.as_bytes()), "end_header");
        says(read_ply(format!("{header}end_header\n0 0 0\n0 0\n").as_bytes()), "vertex 1 of 2");
        says(read_ply(format!("{header}end_header\n0 0 0\n0 zero 0\n").as_bytes()), "`zero`");
        says(read_ply(b"ply\nformat ascii 1.0\nelement vertex 4000000000\nend_header\n"), "no properties");
        let face = "element face 1\nproperty list uchar float vertex_index\nend_header\n0 0 0\n1 1 1\n";
        says(read_ply(format!("{header}{face}3 0 1 -1\n").as_bytes()), "-1 is no vertex");
        says(read_ply(format!("{header}{face}3 0 1 0.5\n").as_bytes()), "0.5 is no vertex");
        says(read_ply(b"ply\nformat ascii 1.0\nelement vertex 1\nproperty quad x\nend_header\n"), "line 4");
    }
}
