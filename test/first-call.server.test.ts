import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { UsageService } from '../gen/marketplace/v1/usage_pb.ts'
import { startPracticeBackend } from '../src/practice/backend.ts'
import { eventually } from './support/eventually.ts'
import { startTollgate } from './support/tollgate.ts'
import { grpcurl, run, toolTimeoutMs } from './support/tools.ts'

const adminKey = 'an-administrator-key-for-tests-only-0001'
const root = fileURLToPath(new URL('..', import.meta.url))

/** The commands of the page but the first block, which says where things are. */
async function commands(): Promise<string> {
  const page = await readFile(new URL('../docs/first-call.md', import.meta.url), 'utf8')
  const [, ...blocks] = [...page.matchAll(/```sh\n(.*?)```/gs)].map(([, block = '']) => block)
  return blocks.join('\n')
}

test('the commands of docs/first-call.md lead from nothing to a recorded call', {
  timeout: toolTimeoutMs,
}, async () => {
  const path = [`${root}node_modules/.bin`, dirname(await grpcurl()), process.env.PATH].join(':')
  const backend = await startPracticeBackend({})
  const tollgate = await startTollgate({ command: 'serve', env: { TOLLGATE_ADMIN_KEY: adminKey } })
  try {
    const { code, stdout, stderr } = await run(
      'bash',
      ['--norc', '-euo', 'pipefail', '-c', `${await commands()}\necho "KEY $KEY"`],
      {
        cwd: root,
        env: {
          PATH: path,
          TOLLGATE: tollgate.address,
          ADMIN_KEY: adminKey,
          BACKEND: `${backend.url}/v1/chat/completions`,
        },
      },
    )
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout).toContain('"cost_per_month"')
    const usage = tollgate.client(UsageService, /^KEY (\S+)$/m.exec(stdout)?.[1] ?? '')
    await eventually(async () => (await usage.listUsageRecords({})).usageRecords.length === 2)
    expect(stdout.match(/"responseData"/g)).toHaveLength(2)
  } finally {
    await tollgate.stop()
    await backend.close()
  }
})
