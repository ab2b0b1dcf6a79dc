/**
 * Generates `gen/` from the protos in the source of the conformance runner: `node test/conformance/generate.ts`, after a
 * change of its version in test/support/tools.ts.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectConformance } from '../support/tools.ts'

const { protos } = await connectConformance()
const programs = join(import.meta.dirname, '../../node_modules/.bin')
const gen = join(import.meta.dirname, 'gen')
const template = {
  version: 'v2',
  plugins: [
    {
      local: 'protoc-gen-es',
      out: gen,
      opt: ['target=ts', 'import_extension=ts', 'erasable_syntax=true'],
    },
  ],
}
const files = ['config', 'server_compat', 'service'].map((name) => `connectrpc/conformance/v1/${name}.proto`)
const folder = mkdtempSync(join(tmpdir(), 'tollgate-conformance-'))
try {
  // Without its comments, which are for those who write runners.
  const image = join(folder, 'conformance.binpb')
  buf('build', protos, '--exclude-source-info', '--output', image)
  buf(
    'generate',
    image,
    '--clean',
    '--template',
    JSON.stringify(template),
    ...files.flatMap((file) => ['--path', file]),
  )
} finally {
  rmSync(folder, { recursive: true })
}
// Beside the tests it is formatted as they are.
execFileSync(join(programs, 'biome'), ['check', '--write', gen], { stdio: 'inherit' })

function buf(...args: string[]): void {
  execFileSync(join(programs, 'buf'), args, { stdio: 'inherit' })
}
