/**
 * Generates `gen/` from the protos in the source of the conformance runner: `node test/conformance/generate.ts`, after a
 * change of its version in test/support/tools.ts.
 */
import { execFileSync } from 'node:child_process'
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
const paths = ['config', 'server_compat', 'service'].flatMap((name) => [
  '--path',
  join(protos, 'connectrpc/conformance/v1', `${name}.proto`),
])
execFileSync(join(programs, 'buf'), ['generate', protos, '--clean', '--template', JSON.stringify(template), ...paths], {
  stdio: 'inherit',
})
// Beside the tests it is formatted as they are.
execFileSync(join(programs, 'biome'), ['check', '--write', gen], { stdio: 'inherit' })
