//! The uniform blocks: the fields of each shader's `Params` in the order, with the names and of the
//! types of the Rust `Params` that is copied into it. Offsets and sizes are checked for every
//! permutation with the shader checks; a swap of two fields shows only here.

use std::path::Path;

/// The fields of `struct NAME { .. }` in a text: name and type.
fn fields(text: &str, name: &str) -> Option<Vec<(String, String)>> {
    let (_, rest) = text.split_once(&format!("struct {name} {{"))?;
    let (body, _) = rest.split_once("\n}")?;
    let field = |line: &str| {
        let line = line.split("//").next().unwrap_or_default().trim().trim_end_matches(',');
        let (name, kind) = line.split_once(':')?;
        Some((name.trim().trim_start_matches("pub ").to_owned(), kind.trim().to_owned()))
    };
    Some(body.lines().filter_map(field).collect())
}

/// The same with structs of the same file written out.
fn flat(text: &str, name: &str) -> Option<Vec<(String, String)>> {
    let mut out = Vec::new();
    for (name, kind) in fields(text, name)? {
        if matches!(kind.as_str(), "u32" | "i32" | "f32") {
            out.push((name, kind));
        } else {
            out.extend(flat(text, &kind)?);
        }
    }
    Some(out)
}

#[test]
fn params_have_the_same_fields_on_both_sides() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut compared, mut faults) = (0, Vec::new());
    let families = std::fs::read_dir(root.join("shaders")).unwrap().map(|entry| entry.unwrap().file_name());
    for family in families.map(|name| name.into_string().unwrap()).filter(|name| name != "common") {
        let sources: Vec<_> = std::fs::read_dir(root.join("src").join(&family))
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        for entry in std::fs::read_dir(root.join("shaders").join(&family)).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let shader = std::fs::read_to_string(&path).unwrap();
            // A shader without a `Params` of its own has that of a common file.
            let Some(wgsl) = fields(&shader, "Params") else { continue };
            let quoted = format!("\"{family}/{stem}\"");
            for rust in sources.iter().filter(|text| text.contains(&quoted)).filter_map(|t| flat(t, "Params"))
            {
                compared += 1;
                let header = ["first_group", "groups"].map(|name| (name.to_owned(), "u32".to_owned()));
                if wgsl != [&header[..], &rust].concat() {
                    faults.push(format!("{family}/{stem}:\n  WGSL {wgsl:?}\n  Rust {rust:?}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(compared >= 12, "only {compared} blocks were found");
}
