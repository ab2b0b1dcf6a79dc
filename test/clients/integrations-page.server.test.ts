import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { demoFacts, startTollgate, type Tollgate } from '../support/tollgate.ts'
import { pythonWithOpenAi, type Ran, run, toolTimeoutMs } from '../support/tools.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

let tollgate: Tollgate
let page: string
let env: Record<string, string>
beforeAll(async () => {
  page = await readFile(new URL('../../docs/integrations.md', import.meta.url), 'utf8')
  tollgate = await startTollgate({ command: 'dev' })
  const { key = '' } = await demoFacts(tollgate)
  env = { OPENAI_BASE_URL: `${tollgate.address}/v1`, OPENAI_API_KEY: key }
})
afterAll(async () => {
  await tollgate?.stop()
})

/** The block of one section of the page. */
function block(section: string): string {
  const found = page.split(/^## /m).find((text) => text.startsWith(`${section}\n`))
  const [, code] = /```\w+\n(.*?)```/s.exec(found ?? '') ?? []
  if (code === undefined) throw new Error(`docs/integrations.md has no block below "${section}"`)
  return code
}

function expectSilentSuccess({ code, stderr }: Ran): void {
  expect(stderr).toBe('')
  expect(code).toBe(0)
}

const requestId = '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'

test('the curl commands of docs/integrations.md list, answer and stream', async () => {
  const ran = await run('bash', ['--norc', '-euo', 'pipefail', '-c', block('curl')], { env })
  expectSilentSuccess(ran)
  expect(ran.stdout).toContain('"object":"list"')
  expect(ran.stdout).toContain('"object":"chat.completion"')
  expect(ran.stdout).toMatch(/data: \[DONE\]\n\n$/)
})

test(
  "the lines for OpenAI's SDK for Python answer, stream with usage, and raise",
  async () => {
    const ran = await run(await pythonWithOpenAi(), ['-c', block('OpenAI for Python')], { env })
    expectSilentSuccess(ran)
    expect(ran.stdout).toContain('CompletionUsage(')
    expect(ran.stdout).toMatch(new RegExp(`^model_not_found ${requestId}$`, 'm'))
  },
  toolTimeoutMs,
)

test("the lines for OpenAI's SDK for Node answer, stream with usage, and raise", async () => {
  const lines = block('OpenAI for Node')
  const ran = await run(process.execPath, ['--input-type=module-typescript', '-e', lines], { env, cwd: root })
  expectSilentSuccess(ran)
  expect(ran.stdout).toContain('completion_tokens')
  expect(ran.stdout).toMatch(new RegExp(`^model_not_found ${requestId}$`, 'm'))
})
