//! Shader checks without a GPU: every permutation that the cases need, for devices of several
//! kinds, through naga to SPIR-V, HLSL, MSL and GLSL, and through the validators that are at hand.
//!
//! The devices are wgpu's noop backend with the limits and features of each kind. Workgroup
//! memory, which wgpu does not check, is measured here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{ModuleInfo, ValidationFlags, Validator};
use patchfield::dispatch::{Capabilities, Constants, Dialect, Launch, Shader, compose};
use patchfield::{Context, Error};

use crate::harness::{Case, run};

/// A kind of device.
struct Profile {
    name: &'static str,
    limits: wgpu::Limits,
    features: wgpu::Features,
    subgroups: (u32, u32),
    cpu: bool,
}

fn profiles() -> [Profile; 5] {
    use wgpu::Features as F;
    let limits = |workgroup_bytes, invocations, buffers| wgpu::Limits {
        max_compute_workgroup_storage_size: workgroup_bytes,
        max_compute_invocations_per_workgroup: invocations,
        max_compute_workgroup_size_x: invocations,
        max_compute_workgroup_size_y: invocations,
        max_storage_buffers_per_shader_stage: buffers,
        ..wgpu::Limits::defaults()
    };
    let all = F::SHADER_F16 | F::SUBGROUP | F::SHADER_FLOAT32_ATOMIC | F::TIMESTAMP_QUERY;
    let (none, default) = (F::empty(), wgpu::Limits::defaults());
    [
        Profile { name: "default limits", limits: default, features: none, subgroups: (4, 128), cpu: false },
        Profile {
            name: "like SwiftShader",
            limits: limits(16 << 10, 256, 10),
            features: F::SUBGROUP | F::TIMESTAMP_QUERY,
            subgroups: (4, 4),
            cpu: true,
        },
        Profile {
            name: "like lavapipe",
            limits: limits(32 << 10, 1024, 32),
            features: all | F::SHADER_INT64,
            subgroups: (8, 8),
            cpu: true,
        },
        Profile {
            name: "like lavapipe without 64-bit integers",
            limits: limits(32 << 10, 1024, 32),
            features: all,
            subgroups: (8, 8),
            cpu: true,
        },
        Profile {
            name: "like NVIDIA",
            limits: limits(48 << 10, 1024, 32),
            features: all,
            subgroups: (32, 32),
            cpu: false,
        },
    ]
}

impl Profile {
    fn context(&self) -> Context {
        let noop = wgpu::NoopBackendOptions {
            enable: true,
            limits: Some(self.limits.clone()),
            features: Some(self.features),
            subgroup_min_size: Some(self.subgroups.0),
            subgroup_max_size: Some(self.subgroups.1),
            ..Default::default()
        };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::NOOP,
            backend_options: wgpu::BackendOptions { noop, ..Default::default() },
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let adapter = pollster::block_on(instance.request_adapter(&Default::default()))
            .expect("the noop backend has an adapter");
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_features: self.features,
            required_limits: self.limits.clone(),
            ..Default::default()
        }))
        .expect("the noop adapter gives a device");
        let capabilities =
            Capabilities { cpu: self.cpu, adapter: self.name.into(), ..Capabilities::of(&device) };
        Context::with_capabilities(&device, &queue, capabilities)
    }
}

/// One permutation, and what the dispatches of the cases ask of it.
pub struct Permutation {
    pub shader: &'static Shader,
    pub constants: Constants,
    /// Bytes of the uniform block.
    params: usize,
    /// The lowest limits of the profiles that chose it: workgroup bytes, invocations, buffers.
    limits: [u32; 3],
}

impl Permutation {
    /// What a launch asks for, without limits of its own.
    pub fn of(launch: &Launch) -> Self {
        Self {
            shader: launch.shader(),
            constants: launch.constants().clone(),
            params: launch.params().len(),
            limits: [u32::MAX; 3],
        }
    }

    /// The text that tells it from others: the same entry point may be put together of other files.
    fn key(&self) -> (&'static str, String) {
        (self.shader.name(), compose(self.shader, &self.constants, Dialect::Naga).wgsl)
    }
}

/// A context on a device that computes nothing, with no feature and the default limits.
pub fn baseline() -> Context {
    let [profile, ..] = profiles();
    profile.context()
}

/// Records every case on every profile; the failures are cases that do not record.
fn permutations(cases: &[Case]) -> (Vec<Permutation>, Vec<String>) {
    let mut all: HashMap<(&'static str, String), Permutation> = HashMap::new();
    let mut failures = Vec::new();
    for profile in profiles() {
        let context = profile.context();
        let limits = [
            profile.limits.max_compute_workgroup_storage_size,
            profile.limits.max_compute_invocations_per_workgroup,
            profile.limits.max_storage_buffers_per_shader_stage,
        ];
        let (mut recorded, mut skipped) = (0, 0);
        for case in cases {
            let recording = match run::record(&context, case) {
                Ok(recording) => recording,
                Err(Error::FeatureMissing { .. } | Error::LimitExceeded { .. }) => {
                    skipped += 1;
                    continue;
                }
                Err(error) => {
                    failures.push(format!("{} {} on {}: {error}", case.kernel, case.name, profile.name));
                    continue;
                }
            };
            recorded += 1;
            for dispatch in recording.dispatches() {
                let permutation = Permutation::of(dispatch.launch());
                let known = all.entry(permutation.key()).or_insert(permutation);
                known.limits = std::array::from_fn(|i| known.limits[i].min(limits[i]));
            }
        }
        println!("{}: {recorded} cases recorded, {skipped} ask for more than it has", profile.name);
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by_cached_key(Permutation::key);
    (all, failures)
}

/// What a target said.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    /// Translated, and accepted by a validator if one is at hand.
    Good,
    /// The target has no such feature, and no adapter behind it offers it.
    NotThere,
    Bad(String),
}

/// What was found out about one permutation.
struct Finding {
    workgroup_bytes: u32,
    targets: [Verdict; 4],
    /// Limits and layouts.
    faults: Vec<String>,
}

/// What naga translates to.
pub const TARGETS: [&str; 4] = ["spirv", "hlsl", "msl", "glsl"];

/// The validators on this machine, and a folder for what they read.
struct Tools {
    spirv_val: bool,
    glslang: bool,
    folder: PathBuf,
}

impl Tools {
    fn find(folder: &Path) -> Self {
        let here = |name: &str| Command::new(name).arg("--version").output().is_ok();
        Self { spirv_val: here("spirv-val"), glslang: here("glslangValidator"), folder: folder.into() }
    }

    /// Writes the text and runs the tool on it; what it says if it refuses.
    fn run(&self, tool: &str, arguments: &[&str], name: &str, text: &[u8]) -> Verdict {
        let path = self.folder.join(name);
        let output =
            std::fs::write(&path, text).and_then(|()| Command::new(tool).args(arguments).arg(&path).output());
        match output {
            Ok(output) if output.status.success() => {
                let _ = std::fs::remove_file(&path);
                Verdict::Good
            }
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                let start: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).take(4).collect();
                Verdict::Bad(format!("{tool} on {}: {}", path.display(), start.join(" | ")))
            }
            Err(error) => Verdict::Bad(format!("{tool}: {error}")),
        }
    }
}

fn check(permutation: &Permutation, index: usize, tools: &Tools) -> Result<Finding, String> {
    let Permutation { shader, constants, params, limits } = permutation;
    let composed = compose(shader, constants, Dialect::Naga);
    let browser = compose(shader, constants, Dialect::Browser).wgsl;
    let new_types = composed.wgsl.contains("enable f16;") || composed.wgsl.contains("<u64>");
    let subgroups = browser.contains("enable subgroups;");
    let mut module = naga::front::wgsl::parse_str(&composed.wgsl)
        .map_err(|e| composed.explain(&e.emit_to_string(&composed.wgsl)))?;
    let validate = |module: &naga::Module| {
        Validator::new(ValidationFlags::all(), naga::valid::Capabilities::all())
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(module)
            .map_err(|e| composed.explain(&e.emit_to_string(&composed.wgsl)))
    };
    validate(&module)?;
    // The entry point alone, as a pipeline has it: other entry points use the same binding numbers.
    module.entry_points.retain(|entry| entry.name == shader.entry());
    naga::compact::compact(&mut module, naga::compact::KeepUnused::No);
    let info = validate(&module)?;
    let mut faults = layout_faults(&module, *params);
    let workgroup_bytes = workgroup_bytes(&module)?;
    let invocations = module.entry_points.first().map_or(0, |e| e.workgroup_size.iter().product::<u32>());
    let asked = [workgroup_bytes, invocations, shader.bindings().len() as u32];
    let names = ["bytes of workgroup memory", "invocations", "storage buffers"];
    for ((asked, limit), name) in asked.iter().zip(limits).zip(names) {
        if asked > limit {
            faults.push(format!("{asked} {name}, chosen on a device that has {limit}"));
        }
    }
    let stem = format!("{}-{index}", shader.name().replace(['/', ':'], "_"));
    let targets = [
        to_spirv(&module, &info, shader.entry(), &stem, tools),
        to_hlsl(&module, &info, new_types, &stem, tools),
        to_msl(&module, &info),
        if new_types {
            Verdict::NotThere
        } else {
            to_glsl(&module, &info, subgroups, shader.entry(), &stem, tools)
        },
    ];
    Ok(Finding { workgroup_bytes, targets, faults })
}

fn workgroup_bytes(module: &naga::Module) -> Result<u32, String> {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    Ok(shared.map(|(_, v)| layouter[v.ty].to_stride()).sum())
}

/// The uniform block against what `Launch` writes: 4-byte scalars in a row, the header first.
fn layout_faults(module: &naga::Module, bytes: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let uniform = module.global_variables.iter().find(|(_, v)| v.space == naga::AddressSpace::Uniform);
    let Some((_, variable)) = uniform else { return vec!["no uniform block is used".into()] };
    let naga::TypeInner::Struct { members, span } = &module.types[variable.ty].inner else {
        return vec!["the uniform is not a struct".into()];
    };
    let name = |i: usize| members.get(i).and_then(|m| m.name.as_deref()).unwrap_or_default();
    if (name(0), name(1)) != ("first_group", "groups") {
        faults.push(format!("the uniform block begins with `{}`, `{}`", name(0), name(1)));
    }
    for (index, member) in members.iter().enumerate() {
        let scalar = matches!(module.types[member.ty].inner, naga::TypeInner::Scalar(s) if s.width == 4);
        if !scalar || member.offset as usize != 4 * index {
            faults.push(format!("`{}` is not a 4-byte scalar at byte {}", name(index), 4 * index));
        }
    }
    if span.next_multiple_of(16) as usize != bytes {
        faults.push(format!("the uniform block has {span} bytes, the launch writes {bytes}"));
    }
    faults
}

fn policies() -> naga::proc::BoundsCheckPolicies {
    let restrict = naga::proc::BoundsCheckPolicy::Restrict;
    naga::proc::BoundsCheckPolicies { index: restrict, buffer: restrict, ..Default::default() }
}

fn to_spirv(module: &naga::Module, info: &ModuleInfo, entry: &str, stem: &str, tools: &Tools) -> Verdict {
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: policies(),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..Default::default()
    };
    let pipeline =
        spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: entry.into() };
    match spv::write_vec(module, info, &options, Some(&pipeline)) {
        Err(error) => Verdict::Bad(error.to_string()),
        Ok(_) if !tools.spirv_val => Verdict::Good,
        Ok(words) => {
            let bytes = bytemuck::cast_slice(&words);
            tools.run("spirv-val", &["--target-env", "vulkan1.1"], &format!("{stem}.spv"), bytes)
        }
    }
}

fn to_hlsl(module: &naga::Module, info: &ModuleInfo, new_types: bool, stem: &str, tools: &Tools) -> Verdict {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    let entry = match written.map(|reflection| reflection.entry_point_names.into_iter().next()) {
        Ok(Some(Ok(entry))) => entry,
        Ok(other) => return Verdict::Bad(format!("no entry point: {other:?}")),
        Err(error) => return Verdict::Bad(error.to_string()),
    };
    // glslang reads HLSL of shader model 5: no 16-bit and no 64-bit types.
    if new_types || !tools.glslang {
        return Verdict::Good;
    }
    let arguments = ["-D", "-V", "-S", "comp", "--auto-map-bindings", "-o", "/dev/null", "-e", &entry];
    tools.run("glslangValidator", &arguments, &format!("{stem}.hlsl"), for_glslang(&text).as_bytes())
}

/// glslang does not know HLSL's `float a[4] = (float[4])0;`, which the compilers for DX12 take: the
/// initialiser goes.
fn for_glslang(hlsl: &str) -> String {
    let line = |line: &str| match line.split_once(" = (") {
        Some((declaration, zero)) if zero.ends_with("])0;") => format!("{declaration};\n"),
        _ => format!("{line}\n"),
    };
    hlsl.lines().map(line).collect()
}

fn to_msl(module: &naga::Module, info: &ModuleInfo) -> Verdict {
    let options = msl::Options {
        lang_version: (2, 4),
        bounds_check_policies: policies(),
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    match msl::write_string(module, info, &options, &Default::default()) {
        Ok((_, reflection)) => match reflection.entry_point_names.into_iter().next() {
            Some(Ok(_)) => Verdict::Good,
            other => Verdict::Bad(format!("no entry point: {other:?}")),
        },
        Err(error) => Verdict::Bad(error.to_string()),
    }
}

fn to_glsl(
    module: &naga::Module,
    info: &ModuleInfo,
    subgroups: bool,
    entry: &str,
    stem: &str,
    tools: &Tools,
) -> Verdict {
    let mut binding_map = glsl::BindingMap::default();
    for (_, variable) in module.global_variables.iter() {
        if let Some(binding) = variable.binding {
            binding_map.insert(binding, binding.binding as u8);
        }
    }
    // Desktop and embedded; subgroup operations exist on the desktop alone.
    let mut versions = vec![glsl::Version::Desktop(430)];
    if !subgroups {
        versions.push(glsl::Version::new_gles(310));
    }
    for version in versions {
        let options = glsl::Options {
            version,
            writer_flags: glsl::WriterFlags::empty(),
            binding_map: binding_map.clone(),
            zero_initialize_workgroup_memory: false,
        };
        let pipeline = glsl::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: entry.into(),
            multiview: None,
        };
        let mut text = String::new();
        let written = glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies())
            .and_then(|mut writer| writer.write());
        if let Err(error) = written {
            return Verdict::Bad(format!("{version}: {error}"));
        }
        if tools.glslang {
            let name = format!("{stem}.{}.comp", version.to_string().replace(' ', ""));
            let verdict = tools.run("glslangValidator", &["-S", "comp"], &name, text.as_bytes());
            if verdict != Verdict::Good {
                return verdict;
            }
        }
    }
    Verdict::Good
}

/// A row of the table: one entry point.
#[derive(Default)]
struct Row {
    permutations: usize,
    good: [usize; 4],
    not_there: [usize; 4],
    workgroup_bytes: u32,
    buffers: usize,
}

/// What was found out about all permutations of the cases.
pub struct Translated {
    pub permutations: Vec<Permutation>,
    /// One line each.
    pub faults: Vec<String>,
    rows: BTreeMap<&'static str, Row>,
}

impl Translated {
    /// Translates every permutation of the cases.
    pub fn of(cases: &[Case]) -> Self {
        let folder = std::env::temp_dir().join(format!("patchfield-shaders-{}", std::process::id()));
        let mut rows: BTreeMap<&'static str, Row> = BTreeMap::new();
        if let Err(error) = std::fs::create_dir_all(&folder) {
            let faults = vec![format!("{}: {error}", folder.display())];
            return Self { permutations: Vec::new(), faults, rows };
        }
        let tools = Tools::find(&folder);
        for (name, here) in [("spirv-val", tools.spirv_val), ("glslangValidator", tools.glslang)] {
            if !here {
                println!("LOUD SKIP: no {name}: nothing but naga checks its translations");
            }
        }
        let (permutations, mut faults) = permutations(cases);
        let findings = check_in_parallel(&permutations, &tools);
        for (permutation, finding) in permutations.iter().zip(findings) {
            let row = rows.entry(permutation.shader.name()).or_default();
            row.permutations += 1;
            row.buffers = permutation.shader.bindings().len();
            let fault =
                |why: &str| format!("{}: {why}\n    {:?}", permutation.shader.name(), permutation.constants);
            match finding {
                Err(why) => faults.push(fault(&why)),
                Ok(finding) => {
                    row.workgroup_bytes = row.workgroup_bytes.max(finding.workgroup_bytes);
                    faults.extend(finding.faults.iter().map(|why| fault(why)));
                    for (i, verdict) in finding.targets.iter().enumerate() {
                        match verdict {
                            Verdict::Good => row.good[i] += 1,
                            Verdict::NotThere => row.not_there[i] += 1,
                            Verdict::Bad(why) => faults.push(fault(&format!("{}: {why}", TARGETS[i]))),
                        }
                    }
                }
            }
        }
        faults.extend(untested(cases, &permutations));
        // A shader that is refused is refused in most of its permutations: one of each is enough to read.
        let mut told = BTreeSet::new();
        faults.retain(|fault| {
            let head = fault.split(" on /").next().unwrap_or(fault).split('\n').next();
            told.insert(head.map(String::from))
        });
        // What a validator refused stays to be looked at.
        if faults.is_empty() {
            let _ = std::fs::remove_dir_all(&folder);
        }
        Self { permutations, faults, rows }
    }

    /// Good, bad and skipped permutations of each entry point and target.
    pub fn counts(&self) -> Vec<(&'static str, &'static str, [usize; 3])> {
        let mut out = Vec::new();
        for (name, row) in &self.rows {
            for (i, target) in TARGETS.iter().enumerate() {
                let (good, skipped) = (row.good[i], row.not_there[i]);
                out.push((*name, *target, [good, row.permutations - good - skipped, skipped]));
            }
        }
        out
    }
}

/// Checks every permutation of the cases, prints a table, and writes it as JSON. `false` if
/// anything is wrong.
pub fn check_all(cases: &[Case], report: Option<&Path>) -> bool {
    let Translated { permutations, faults, rows } = Translated::of(cases);
    print_table(&rows, permutations.len());
    for fault in &faults {
        println!("FAILED {fault}");
    }
    let mut good = faults.is_empty();
    if let Some(path) = report {
        if let Err(error) = write_report(path, &rows, faults.len()) {
            println!("{}: {error}", path.display());
            good = false;
        }
    }
    println!("{} permutations of {} entry points, {} faults", permutations.len(), rows.len(), faults.len());
    good
}

/// Kernels none of whose cases could be recorded.
fn untested(cases: &[Case], all: &[Permutation]) -> Option<String> {
    let kernels: BTreeSet<_> = cases.iter().map(|case| case.kernel).collect();
    (all.is_empty() && !kernels.is_empty()).then(|| format!("nothing was recorded of {kernels:?}"))
}

fn check_in_parallel(all: &[Permutation], tools: &Tools) -> Vec<Result<Finding, String>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(permutation) = all.get(index) else { return };
                    let finding = check(permutation, index, tools);
                    results.lock().expect("no thread panics").insert(index, finding);
                }
            });
        }
    });
    results.into_inner().expect("no thread panics").into_values().collect()
}

fn print_table(rows: &BTreeMap<&str, Row>, permutations: usize) {
    println!("\n{permutations} permutations: good of those the target can have");
    let width = rows.keys().map(|name| name.len()).max().unwrap_or(0).max(12);
    println!(
        "{:width$}  {:>9} {:>9} {:>9} {:>9}  {:>15} {:>7}",
        "entry point", "SPIR-V", "HLSL", "MSL", "GLSL", "workgroup bytes", "buffers"
    );
    for (name, row) in rows {
        let cell = |i: usize| match row.permutations - row.not_there[i] {
            0 => "-".to_string(),
            n => format!("{}/{n}", row.good[i]),
        };
        let cells: [String; 4] = std::array::from_fn(cell);
        println!(
            "{name:width$}  {:>9} {:>9} {:>9} {:>9}  {:>15} {:>7}",
            cells[0], cells[1], cells[2], cells[3], row.workgroup_bytes, row.buffers
        );
    }
}

fn write_report(path: &Path, rows: &BTreeMap<&str, Row>, faults: usize) -> std::io::Result<()> {
    let shaders: Vec<_> = rows
        .iter()
        .map(|(name, row)| {
            let mut json = serde_json::json!({
                "shader": name,
                "permutations": row.permutations,
                "workgroup_bytes": row.workgroup_bytes,
                "storage_buffers": row.buffers,
            });
            for (i, target) in TARGETS.iter().enumerate() {
                json[target] = serde_json::json!({ "good": row.good[i], "not_there": row.not_there[i] });
            }
            json
        })
        .collect();
    crate::report::write_json(path, &serde_json::json!({ "shaders": shaders, "faults": faults }))
}
