# From `cargo metadata` to a CycloneDX 1.5 bill of materials: the packages that are compiled into the program, and which
# of them depends on which. It has no serial number and no time of the run, so the same commit gives the same file.
#
# Arguments: name, the program's package; created, the commit's time; compiled, the lines "NAME vVERSION …" of
# `cargo tree`, which knows the features of this one build. `cargo metadata` lists those of the whole workspace.

def purl: "pkg:cargo/\(.name)@\(.version)";
def component: {
    type: (if .name == $name then "application" else "library" end),
    "bom-ref": purl, name, version, purl: purl,
  } + if .license then {licenses: [{expression: (.license | gsub("/"; " OR "))}]} else {} end;

(reduce ($compiled | split("\n")[] | split(" ") | select(length > 1)) as [$package, $version]
  ({}; .["pkg:cargo/\($package)@\($version[1:])"] = true)) as $in
| (.packages | map(select($in[purl])) | sort_by(purl)) as $packages
| ($packages | INDEX(.id)) as $by_id
| (.resolve.nodes | INDEX(.id)) as $nodes
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {timestamp: $created, component: ($packages[] | select(.name == $name) | component)},
    components: ($packages | map(select(.name != $name) | component)),
    dependencies: ($packages | map({
      ref: purl,
      dependsOn: [$nodes[.id].deps[] | select(any(.dep_kinds[]; .kind == null)) | $by_id[.pkg] // empty | purl] | unique
    })),
  }
