import { ScalarType } from '@bufbuild/protobuf'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { declaredServices } from '../../tools/declared-services.ts'
import { type Fixture, keys, startFixture, until } from '../fixture.ts'
import { type Binding, bindingsOf } from './binding.ts'

let fixture: Fixture
const services = await declaredServices()
const bindings = services.flatMap(({ methods }) => methods).flatMap(bindingsOf)

beforeAll(async () => {
  const registrations = services.map((service) => ({
    service,
    options: {},
    implementation: (name: string) => (service.method[name]?.methodKind === 'unary' ? once : many),
  }))
  fixture = await startFixture({ services: registrations })
})
afterAll(async () => {
  await fixture.close()
})

async function once(): Promise<object> {
  return {}
}

async function* many(): AsyncGenerator<object> {
  yield {}
}

/** A path that matches, with a value of the right kind for each variable. */
function pathOf({ template, variables }: Binding): string {
  const segments = template.segments.map((segment) => (segment.kind === 'literal' ? segment.text : 'x'))
  for (const { first, fields } of variables) {
    const scalar = fields.at(-1)?.scalar
    if (scalar !== ScalarType.STRING) segments[first] = scalar === ScalarType.BOOL ? 'true' : '1'
  }
  return `/${segments.join('/')}${template.action === '' ? '' : `:${template.action}`}`
}

test('there are bindings to walk over', () => {
  expect(bindings.length).toBeGreaterThan(15)
})

test.each(bindings.map((binding) => [`${binding.verb} ${binding.template.text}`, binding] as const))(
  '%s reaches its RPC',
  async (_, binding) => {
    const response = await fetch(`${fixture.server.address}${pathOf(binding)}`, {
      method: binding.verb,
      headers: { authorization: `Bearer ${keys.admin}`, 'content-type': 'application/json' },
    })
    await response.text()
    // An empty request may break a rule of its fields; that, too, only its own RPC can say.
    expect([200, 400]).toContain(response.status)
    await until(() => fixture.ended.at(-1)?.rpc === binding.method.name)
  },
)
