/**
 * Registries on this machine: the packages just made, beside what they depend on, so that the ways
 * in which users install them can be tried before anything is published, and without a network.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { join, posix, sep } from "node:path";

/** What serves these packages: an address for each registry, and how to end it. */
export async function startRegistries({ tarballs, jsr }) {
  const files = new Map();
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const file = files.get(path);
    response.writeHead(file ? 200 : 404, { "content-type": contentType(path) });
    response.end(file?.());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const origin = `http://127.0.0.1:${server.address().port}`;
  for (const tarball of tarballs) addNpm(files, origin, tarball);
  addJsr(files, jsr);
  return {
    npm: `${origin}/`,
    jsr: `${origin}/`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

function contentType(path) {
  if (path.endsWith(".ts")) return "text/typescript";
  return path.endsWith(".tgz") ? "application/octet-stream" : "application/json";
}

/** A package as npm's registry describes it. */
function addNpm(files, origin, { manifest, bytes }) {
  const { name, version } = manifest;
  const place = `/${name}/-/${version}.tgz`;
  const integrity = `sha512-${createHash("sha512").update(bytes).digest("base64")}`;
  const shasum = createHash("sha1").update(bytes).digest("hex");
  const dist = { tarball: `${origin}${place}`, integrity, shasum };
  // What a package could do without is not there: so no package comes to rely on it.
  const { optionalDependencies: _, scripts: __, ...described } = manifest;
  const packument = {
    name,
    "dist-tags": { latest: version },
    versions: { [version]: { ...described, dist } },
  };
  files.set(`/${name}`, () => JSON.stringify(packument));
  files.set(place, () => bytes);
}

/** A directory as JSR describes it, after it has put what the import map says into the modules. */
function addJsr(files, directory) {
  const { name, version, exports, imports } = JSON.parse(
    readFileSync(join(directory, "deno.json"), "utf8"),
  );
  const manifest = {};
  for (const path of modulesBelow(directory)) {
    let text = readFileSync(join(directory, path), "utf8");
    for (const [from, to] of Object.entries(imports)) {
      text = text.replaceAll(`from "${from}"`, `from "${to}"`);
    }
    const bytes = new TextEncoder().encode(text);
    const checksum = `sha256-${createHash("sha256").update(bytes).digest("hex")}`;
    manifest[`/${path}`] = { size: bytes.length, checksum };
    files.set(`/${name}/${version}/${path}`, () => bytes);
  }
  const meta = { scope: "shmap", name: "shmap", latest: version, versions: { [version]: {} } };
  files.set(`/${name}/meta.json`, () => JSON.stringify(meta));
  const described = { manifest, exports: { ".": exports } };
  files.set(`/${name}/${version}_meta.json`, () => JSON.stringify(described));
}

function modulesBelow(directory) {
  const paths = [
    "mod.ts",
    ...readdirSync(join(directory, "src"), { recursive: true })
      .map((path) => posix.join("src", path.split(sep).join("/"))),
  ];
  return paths.filter((path) =>
    existsSync(join(directory, path)) && statSync(join(directory, path)).isFile()
  );
}
