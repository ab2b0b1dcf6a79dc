import { expect, test } from 'vitest'
import { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import { TollgateError } from '../errors.ts'
import { createChain, type Middleware, middlewareOrder } from './middleware.ts'
import { ServerCall } from './server-call.ts'

const call = () =>
  new ServerCall(
    'id',
    {
      method: ConsumptionService.method.checkQuota,
      name: 'x/y',
      verb: 'POST',
      path: '/x/y',
      httpStatusOf: () => 500,
      access: 'undeclared',
      consumerPath: [],
      organizationPath: [],
      longLived: false,
    },
    {},
    '127.0.0.1',
  )

const recording = (seen: string[], refuseAt?: string): Middleware[] =>
  middlewareOrder.map((name) => ({
    name,
    why: 'test',
    phase: name === 'confine' || name === 'validate' ? 'message' : 'headers',
    enter() {
      seen.push(`+${name}`)
      if (name === refuseAt) throw new TollgateError('INTERNAL', 'no')
    },
    exit: () => void seen.push(`-${name}`),
  }))

test('an order other than the declared one is refused at start', () => {
  const seen: string[] = []
  expect(() => createChain(recording(seen).reverse())).toThrow('middleware order is validate, confine')
  expect(() => createChain(recording(seen).slice(1))).toThrow('it must be trace, observe, deadline')
  const early = recording(seen).map(
    (each): Middleware => (each.name === 'trace' ? { ...each, phase: 'message' } : each),
  )
  expect(() => createChain(early)).toThrow('stands before one of phase "headers"')
})

test('a refusal stops the chain, and exactly those that were entered are left, in reverse', async () => {
  const seen: string[] = []
  const chain = createChain(recording(seen, 'deadline'))
  const refused = call()
  await expect(chain.headers(refused)).rejects.toThrow('no')
  chain.exit(refused, { ms: 1, httpStatus: 401 })
  expect(seen).toEqual(['+trace', '+observe', '+deadline', '-deadline', '-observe', '-trace'])
})

test('a call that passes both phases leaves everything', async () => {
  const seen: string[] = []
  const chain = createChain(recording(seen))
  const passed = call()
  await chain.headers(passed)
  await chain.message(passed)
  chain.exit(passed, { ms: 1, httpStatus: 200 })
  expect(seen.filter((step) => step.startsWith('-'))).toEqual([...middlewareOrder].reverse().map((name) => `-${name}`))
})
