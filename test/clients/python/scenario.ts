import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Json, parseJson } from '../../support/json.ts'
import { pythonWithGrpc, run } from '../../support/tools.ts'

/** Runs the scripts of this folder: Python tells what it saw, the tests judge. */
export interface Scenarios {
  /** What the script printed. Throws with its traceback when it failed. */
  play(script: string, ...args: readonly string[]): Promise<Json>
  close(): Promise<void>
}

/**
 * A Python client with stubs that its own compiler made, now, from the proto text of the reference: no file of this
 * project's contracts has a part in it.
 */
export async function createScenarios(facts: Readonly<Record<string, string>>): Promise<Scenarios> {
  const python = await pythonWithGrpc()
  const stubs = await mkdtemp(join(tmpdir(), 'tollgate-python-'))
  const close = () => rm(stubs, { recursive: true, force: true })
  const env = { TOLLGATE_FACTS: JSON.stringify(facts), PYTHONPATH: stubs, PYTHONDONTWRITEBYTECODE: '1' }

  async function runPython(args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await run(python, args, { env, cwd: import.meta.dirname })
    if (code !== 0) throw new Error(`python ${args.join(' ')} ended with ${code}:\n${stderr}${stdout}`)
    return stdout
  }

  try {
    const outputs = [`--python_out=${stubs}`, `--grpc_python_out=${stubs}`]
    await runPython(['-m', 'grpc_tools.protoc', '-I', referenceFolder, ...outputs, 'marketplace.proto'])
  } catch (error) {
    await close()
    throw error
  }
  return {
    async play(script, ...args) {
      return parseJson(await runPython([script, ...args]))
    },
    close,
  }
}

const referenceFolder = join(import.meta.dirname, '../../fixtures/reference-004')
