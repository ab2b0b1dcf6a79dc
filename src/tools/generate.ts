/**
 * Generates `gen/` and the table of docs/http-api.md from `proto/`, without a network.
 *
 * The protos of others (google.api, google.rpc, grpc health and reflection, buf.validate) come from installed packages
 * and are assembled into `proto/`, where git ignores them: buf compiles one module, and no copy can go stale.
 *
 * `generate.ts --check` generates into a scratch folder and fails with the list of files that differ from `gen/`.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { file_buf_validate_validate } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js'
import { printProto } from './print-proto.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const protos = join(root, 'proto')

const packaged = {
  'google/api/annotations.proto': 'google-proto-files/google/api/annotations.proto',
  'google/api/http.proto': 'google-proto-files/google/api/http.proto',
  'google/api/httpbody.proto': 'google-proto-files/google/api/httpbody.proto',
  'google/rpc/code.proto': 'google-proto-files/google/rpc/code.proto',
  'google/rpc/error_details.proto': 'google-proto-files/google/rpc/error_details.proto',
  'google/rpc/status.proto': 'google-proto-files/google/rpc/status.proto',
  'grpc/health/v1/health.proto': 'grpc-health-check/proto/health/v1/health.proto',
  'grpc/reflection/v1/reflection.proto': '@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto',
  'grpc/reflection/v1alpha/reflection.proto': '@grpc/reflection/build/proto/grpc/reflection/v1alpha/reflection.proto',
} as const

assembleProtos()
if (process.argv.includes('--check')) checkDrift()
else {
  buf('generate')
  // In a process of its own, which imports what was generated just now.
  for (const tool of ['route-docs.ts', 'permission-docs.ts']) {
    execFileSync(process.execPath, [join(root, 'src/tools', tool)], { stdio: 'inherit' })
  }
}

function assembleProtos(): void {
  for (const [path, source] of Object.entries(packaged)) {
    const target = join(protos, path)
    mkdirSync(dirname(target), { recursive: true })
    cpSync(join(root, 'node_modules', source), target)
  }
  const validate = join(protos, 'buf/validate/validate.proto')
  mkdirSync(dirname(validate), { recursive: true })
  writeFileSync(validate, printProto(file_buf_validate_validate.proto))
}

function checkDrift(): void {
  const scratch = mkdtempSync(join(tmpdir(), 'tollgate-gen-'))
  try {
    buf('generate', '--output', scratch)
    const committed = readTree(join(root, 'gen'))
    const fresh = readTree(join(scratch, 'gen'))
    const drifted = [...new Set([...committed.keys(), ...fresh.keys()])].filter(
      (path) => committed.get(path) !== fresh.get(path),
    )
    if (drifted.length === 0) return
    console.error(`gen/ differs from proto/ in ${drifted.join(', ')}: run "npm run generate" and commit the result`)
    process.exitCode = 1
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

function readTree(folder: string): Map<string, string> {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  return new Map(
    files.map((entry) => {
      const path = join(entry.parentPath, entry.name)
      return [path.slice(folder.length + 1), readFileSync(path, 'utf8')]
    }),
  )
}

function buf(...args: string[]): void {
  execFileSync(join(root, 'node_modules/.bin/buf'), args, { cwd: root, stdio: 'inherit' })
}
