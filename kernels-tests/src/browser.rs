//! Portability: every shader compiled by a browser, recorded dispatches of every kernel replayed
//! there, and the same cases on every adapter.
//!
//! The browser is a headless Chromium. Its page is served from here; it fetches the work as JSON
//! and posts what it found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use patchfield::dispatch::{Access, Capabilities, Composed, Dialect, Dispatch, compose};
use patchfield::{Context, Error};
use serde_json::{Value, json};

use crate::harness::adapter::{self, Adapter};
use crate::harness::{Case, Expected, run};
use crate::translation::{Permutation, Translated};

/// Cases of one kernel that are replayed, beyond those that bring an entry point no other has.
const CASES: usize = 32;
/// Bytes of all buffers of a replayed case.
const LARGEST: usize = 1 << 19;
/// How long the browser may be silent: it gives a sign of life after each 25 shaders or cases.
const PATIENCE: Duration = Duration::from_secs(600);

/// Shaders by their text.
#[derive(Default)]
struct Shaders {
    index: HashMap<String, usize>,
    work: Vec<Value>,
    composed: Vec<Composed>,
    names: Vec<&'static str>,
}

impl Shaders {
    fn add(&mut self, permutation: &Permutation) -> usize {
        let shader = permutation.shader;
        let composed = compose(shader, &permutation.constants, Dialect::Browser);
        let key = format!("{}\n{}", shader.entry(), composed.wgsl);
        if let Some(&index) = self.index.get(&key) {
            return index;
        }
        // No browser has the last.
        let features: Vec<_> =
            [("enable f16;", "shader-f16"), ("enable subgroups;", "subgroups"), ("<u64>", "64-bit integers")]
                .into_iter()
                .filter(|(text, _)| composed.wgsl.contains(text))
                .map(|(_, feature)| feature)
                .collect();
        let bindings: Vec<_> = shader
            .bindings()
            .iter()
            .map(|binding| if binding.access == Access::Read { "read-only-storage" } else { "storage" })
            .collect();
        let entry = shader.entry();
        self.work.push(json!({
            "code": composed.wgsl, "entry": entry, "features": features, "bindings": bindings,
        }));
        self.composed.push(composed);
        self.names.push(shader.name());
        self.index.insert(key, self.work.len() - 1);
        self.work.len() - 1
    }
}

/// A few cases of each kernel: small ones, and all that bring a new entry point.
fn choose<'a>(cases: &'a [Case], context: &Context) -> Vec<&'a Case> {
    let mut by_size: Vec<(usize, &Case)> = cases
        .iter()
        .map(|case| (case.buffers.iter().map(|(_, input)| input.data().bytes().len()).sum(), case))
        .collect();
    // Middling sizes first: one element shows little.
    by_size.sort_by_key(|(size, _)| (*size > LARGEST, size.abs_diff(8 << 10)));
    let mut entries = BTreeSet::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for (size, case) in by_size {
        let count = counts.entry(case.kernel).or_default();
        let Ok(recording) = run::record(context, case) else { continue };
        let new = recording.dispatches().iter().any(|d| !entries.contains(d.launch().shader().name()));
        if new || *count < CASES && size <= LARGEST {
            *count += 1;
            entries.extend(recording.dispatches().iter().map(|d| d.launch().shader().name()));
            out.push(case);
        }
    }
    out.sort_by_key(|case| case.kernel);
    out
}

fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// A case as the page replays it.
fn export(context: &Context, case: &Case, shaders: &mut Shaders) -> Result<Value, Error> {
    let snapshot = run::snapshot(context, case)?;
    let position = |buffer: &wgpu::Buffer| snapshot.buffers.iter().position(|(b, _)| b == buffer);
    let mut dispatch = |dispatch: &Dispatch| {
        let launch = dispatch.launch();
        let bound: Vec<_> = dispatch
            .buffers()
            .iter()
            .map(|(_, buffer, range)| json!([position(buffer), range.start, range.end - range.start]))
            .collect();
        json!({
            "shader": shaders.add(&Permutation::of(launch)),
            "params": encode(launch.params()),
            "grid": launch.grid(),
            "bound": bound,
        })
    };
    let dispatches: Vec<_> = snapshot.recording.dispatches().iter().map(&mut dispatch).collect();
    let mut outputs = Vec::new();
    for (name, expected) in &case.expected {
        let Some(place) = snapshot.outputs.iter().find(|place| place.name == *name) else { continue };
        let mut output = json!({
            "name": name, "buffer": place.buffer, "offset": place.offset, "size": place.size,
        });
        match expected {
            Expected::Exact(words) => output["exact"] = encode(bytemuck::cast_slice(words)).into(),
            Expected::Near { value, magnitude, ulps, absolute } if !place.is_half => {
                let unit = 1.0 / 16_777_216.0;
                let bound: Vec<f64> = magnitude.iter().map(|m| absolute + ulps * unit * m).collect();
                output["value"] = encode(bytemuck::cast_slice(value)).into();
                output["bound"] = encode(bytemuck::cast_slice(&bound)).into();
            }
            _ => continue,
        }
        outputs.push(output);
    }
    let buffers: Vec<_> = snapshot.buffers.iter().map(|(_, bytes)| encode(bytes)).collect();
    Ok(json!({ "buffers": buffers, "dispatches": dispatches, "outputs": outputs }))
}

/// The browser, ended when it goes out of scope.
struct Browser {
    child: Child,
    profile: PathBuf,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

impl Browser {
    fn open(url: &str) -> Result<Self, String> {
        let own = std::env::var("CHROME").ok();
        let names =
            own.as_deref().into_iter().chain(["chromium", "chromium-browser", "google-chrome", "chrome"]);
        let here = |name: &&str| {
            let mut asked = Command::new(name);
            asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            matches!(asked.status(), Ok(status) if status.success())
        };
        let Some(program) = names.clone().find(here) else {
            let tried: Vec<_> = names.collect();
            return Err(format!(
                "no Chromium (tried {}): install it (Debian: `apt-get install chromium`), or name it in CHROME",
                tried.join(", ")
            ));
        };
        let profile = std::env::temp_dir().join(format!("patchfield-browser-{}", std::process::id()));
        let child = Command::new(program)
            .args(["--headless", "--no-sandbox", "--no-first-run", "--disable-extensions"])
            .args(["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            // Its own driver list, not the one that the adapters are chosen by.
            .env_remove("VK_DRIVER_FILES")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        Ok(Self { child, profile })
    }
}

/// Serves the page and the work until the page has posted what it found.
fn ask_browser(work: &Value) -> Result<Value, String> {
    let server = tiny_http::Server::http("127.0.0.1:0").map_err(|error| format!("no local port: {error}"))?;
    let address = server.server_addr();
    let mut browser = Browser::open(&format!("http://{address}/"))?;
    let work = work.to_string();
    let mut heard = Instant::now();
    loop {
        let waited = server.recv_timeout(Duration::from_millis(200)).map_err(|error| error.to_string())?;
        if let Ok(Some(status)) = browser.child.try_wait() {
            return Err(format!("the browser ended by itself with {status}"));
        }
        if heard.elapsed() > PATIENCE {
            return Err(format!("the browser has been silent for {} s", PATIENCE.as_secs()));
        }
        let Some(mut request) = waited else { continue };
        heard = Instant::now();
        let typed = |text: &str, kind: &str| {
            let kind = format!("Content-Type: {kind}").parse::<tiny_http::Header>();
            let response = tiny_http::Response::from_string(text);
            match kind {
                Ok(kind) => response.with_header(kind),
                Err(()) => response,
            }
        };
        let response = match request.url() {
            "/" => typed(include_str!("browser.html"), "text/html"),
            "/work" => typed(&work, "application/json"),
            "/found" => {
                let found = serde_json::from_reader(request.as_reader());
                let _ = request.respond(typed("", "text/plain"));
                return found.map_err(|error| format!("what the page posted: {error}"));
            }
            _ => typed("", "text/plain").with_status_code(404),
        };
        request.respond(response).map_err(|error| error.to_string())?;
    }
}

/// Counts of good, bad and skipped.
#[derive(Debug, Clone, Copy, Default)]
struct Count([usize; 3]);

impl Count {
    fn text(self) -> String {
        let [good, bad, skipped] = self.0;
        match (bad, skipped) {
            (0, 0) => good.to_string(),
            (0, _) => format!("{good} (-{skipped})"),
            _ => format!("{good} FAILED {bad}"),
        }
    }

    fn json(self) -> Value {
        json!({ "good": self.0[0], "failed": self.0[1], "skipped": self.0[2] })
    }
}

type Table = BTreeMap<&'static str, BTreeMap<String, Count>>;

fn print(title: &str, table: &Table, columns: &[String]) {
    let width = table.keys().map(|name| name.len()).max().unwrap_or(0).max(title.len());
    print!("\n{title:width$}");
    columns.iter().for_each(|column| print!("  {column:>12}"));
    println!();
    for (name, cells) in table {
        print!("{name:width$}");
        for column in columns {
            print!("  {:>12}", cells.get(column).map_or("-".into(), |count| count.text()));
        }
        println!();
    }
}

fn report(table: &Table) -> Value {
    let rows = table.iter().map(|(name, cells)| {
        let cells: serde_json::Map<_, _> =
            cells.iter().map(|(column, c)| (column.clone(), c.json())).collect();
        ((*name).to_string(), Value::Object(cells))
    });
    Value::Object(rows.collect())
}

/// Everything; `true` if all is well.
pub fn check_all(cases: &[Case], path: Option<&Path>) -> bool {
    let translated = Translated::of(cases);
    let mut faults = translated.faults.clone();
    let adapters = adapter::all();
    let mut shaders = Shaders::default();
    let all: Vec<usize> = translated.permutations.iter().map(|p| shaders.add(p)).collect();
    let chosen = choose(cases, &crate::translation::baseline());
    let mut work = Vec::new();
    match adapters.first() {
        None => faults.push("no adapter: nothing could be recorded for the browser".into()),
        Some(Adapter { context, .. }) => {
            let recorder =
                Context::with_capabilities(context.device(), context.queue(), Capabilities::baseline());
            for case in &chosen {
                match export(&recorder, case, &mut shaders) {
                    Ok(one) => work.push(one),
                    Err(error) => faults.push(format!("{} {}: {error}", case.kernel, case.name)),
                }
            }
        }
    }
    println!("{} shaders and {} cases for the browser", shaders.work.len(), work.len());
    let exported = work.len();
    let asked = ask_browser(&json!({ "shaders": shaders.work, "cases": work }));
    let found = asked.unwrap_or_else(|error| json!({ "error": error }));
    if let Some(error) = found["error"].as_str() {
        faults.push(format!("browser: {error}"));
    }
    println!("browser: {}", found["adapter"].as_str().unwrap_or("none"));

    let mut by_shader = Table::new();
    for (name, target, counts) in translated.counts() {
        by_shader.entry(name).or_default().insert(target.into(), Count(counts));
    }
    for &index in &all {
        let result = &found["shaders"][index];
        let name = shaders.names[index];
        let cell = by_shader.entry(name).or_default().entry("browser".into()).or_default();
        let errors = result["errors"].as_array().map_or(&[][..], Vec::as_slice);
        if result.is_null() || !errors.is_empty() {
            cell.0[1] += 1;
            for error in errors.iter().take(1) {
                let line = error["line"].as_u64().unwrap_or(0) as usize;
                let (file, line) = shaders.composed[index].origin(line).unwrap_or(("composed", line as u32));
                faults.push(format!("{name} in the browser: {file}:{line}: {}", error["message"]));
            }
        } else if result["missing"].is_string() {
            cell.0[2] += 1;
        } else {
            cell.0[0] += 1;
        }
    }

    let mut by_kernel = Table::new();
    for (i, case) in chosen.iter().enumerate() {
        let cells = by_kernel.entry(case.kernel).or_default();
        let cell = cells.entry("browser".into()).or_default();
        // `null` is what a good case posts; a case that was never reached is missing.
        match found["cases"].get(i) {
            Some(Value::Null) if exported == chosen.len() => cell.0[0] += 1,
            said => {
                cell.0[1] += 1;
                let why = said.and_then(Value::as_str).unwrap_or("was not replayed");
                faults.push(format!("{} {} in the browser: {why}", case.kernel, case.name));
            }
        }
        for adapter in &adapters {
            let cell = cells.entry(adapter.name.clone()).or_default();
            match run::run(&adapter.context, case, None) {
                run::Outcome::Passed => cell.0[0] += 1,
                run::Outcome::Skipped(_) => cell.0[2] += 1,
                run::Outcome::Failed(why) => {
                    cell.0[1] += 1;
                    faults.push(format!("{} {} on {}: {why}", case.kernel, case.name, adapter.name));
                }
            }
        }
    }
    let kernels: BTreeSet<_> = cases.iter().map(|case| case.kernel).collect();
    for kernel in kernels.into_iter().filter(|kernel| !by_kernel.contains_key(kernel)) {
        faults.push(format!("{kernel}: no case could be replayed"));
    }

    let mut columns: Vec<String> = crate::translation::TARGETS.iter().map(ToString::to_string).collect();
    columns.push("browser".into());
    print("shader", &by_shader, &columns);
    let mut columns: Vec<String> = adapters.iter().map(|adapter| adapter.name.clone()).collect();
    columns.push("browser".into());
    print("kernel", &by_kernel, &columns);
    println!("\n(-n): n need a feature that is not there");
    for fault in &faults {
        println!("FAILED {fault}");
    }
    println!(
        "{} permutations, {exported} cases replayed in the browser, {} faults",
        translated.permutations.len(),
        faults.len()
    );
    let json = json!({
        "browser": found["adapter"], "shaders": report(&by_shader), "kernels": report(&by_kernel),
        "failed": faults.len(),
    });
    let written = path.is_none_or(|path| match crate::report::write_json(path, &json) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            false
        }
    });
    faults.is_empty() && written
}
