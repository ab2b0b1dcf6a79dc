import { afterAll, beforeAll, expect, test } from 'vitest'
import { UserService } from '../gen/marketplace/v1/users_pb.ts'
import { at, parseJson } from './support/json.ts'
import { refusal } from './support/refusal.ts'
import { demoFacts, startTollgate, type Tollgate } from './support/tollgate.ts'

let tollgate: Tollgate
const warning = 'ENABLE_RBAC is false: permissions are NOT enforced, every caller may do everything'

beforeAll(async () => {
  tollgate = await startTollgate({ command: 'dev', env: { ENABLE_RBAC: 'false' } })
}, 120_000)

afterAll(() => tollgate?.stop())

test('without RBAC a consumer’s key may do everything, and no key still nothing', async () => {
  const { key = '' } = await demoFacts(tollgate)
  const { users } = await tollgate.client(UserService, key).listUsers({})
  expect(users).toEqual([])
  expect(await refusal(tollgate.client(UserService, 'nobody').listUsers({}))).toMatchObject({ code: 16 })
})

test('without RBAC the log says so at start', () => {
  expect(tollgate.output()).toContain(warning)
})

test.each(['/health', '/health/detailed'])('without RBAC %s says so', async (path) => {
  const answer = await fetch(tollgate.address + path)
  expect(answer.status).toBe(200)
  expect(at(parseJson(await answer.text()), 'warnings')).toContain(warning)
})
