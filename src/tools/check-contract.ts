/**
 * Checks the protos against the text of reference 004, which clients were generated from: every name, number and type in
 * it is kept for ever.
 */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { brokenPromises } from './contract.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

const broken = brokenPromises(compile('test/fixtures/reference-004', '{"version":"v2"}'), compile('.'))
for (const sentence of broken) console.error(sentence)
if (broken.length > 0) process.exitCode = 1

function compile(folder: string, config?: string) {
  const args = ['build', '--as-file-descriptor-set', '--exclude-source-info', '-o', '-']
  if (config !== undefined) args.push('--config', config)
  const image = execFileSync(`${root}node_modules/.bin/buf`, args, { cwd: `${root}${folder}`, maxBuffer: 2 ** 26 })
  return fromBinary(FileDescriptorSetSchema, image).file
}
