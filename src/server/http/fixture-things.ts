import { TollgateError } from '../../errors.ts'
import { consumption, type Fixture, rateLimited, startFixture } from '../fixture.ts'
import type { ServiceRegistration } from '../rpc.ts'
import { get, post, rpc, thingsService } from './fixture-service.ts'

/** A server with `fixture.Things` beside ConsumptionService, called by the bindings of both: for the tests of a file. */
export interface Things extends Fixture {
  ask(path: string, init?: RequestInit): Promise<Response>
  /** Lets the calls go on that wait. */
  goOn(): void
  /** How many streams ended, in whatever way. */
  left(): number
}

export async function startThings(): Promise<Things> {
  const state: State = { held: Promise.withResolvers(), left: 0 }
  const fixture = await startFixture({ services: [consumption([], async () => {}), registration(state)] })
  return {
    ...fixture,
    ask: (path, init) => fetch(`${fixture.server.address}${path}`, init),
    goOn() {
      state.held.resolve()
      state.held = Promise.withResolvers()
    },
    left: () => state.left,
  }
}

/** Headers of a body in JSON. */
export const json = { 'content-type': 'application/json' }

interface State {
  held: PromiseWithResolvers<void>
  left: number
}

function registration(state: State): ServiceRegistration {
  const service = thingsService([
    rpc('List', get('/things/v1/things')),
    rpc('Get', get('/things/v1/things/{id}', { responseBody: 'part' })),
    rpc('Make', post('/things/v1/things', 'part')),
    rpc('Replace', { pattern: { case: 'put', value: '/things/v1/things/{id}' }, body: '*' }),
    rpc('Change', { pattern: { case: 'patch', value: '/things/v1/things/{id}' }, body: '*' }),
    rpc('Remove', { pattern: { case: 'delete', value: '/things/v1/things/{id}' } }),
    rpc('Stop', post('/things/v1/things/{id}:stop')),
    rpc('Download', get('/things/v1/raw'), { output: 'google.api.HttpBody' }),
    rpc('Upload', post('/things/v1/raw', 'blob')),
    rpc('Fail', get('/things/v1/fail/{id}')),
    rpc('Watch', get('/things/v1/watch/{id}'), { streams: 'answer' }),
    rpc('Parts', get('/things/v1/parts', { responseBody: 'part' }), { streams: 'answer' }),
    rpc('Missing', get('/things/v1/missing')),
  ])
  const echo = async (request: object) => request
  const implementation = {
    list: echo,
    get: echo,
    make: echo,
    replace: echo,
    change: echo,
    remove: echo,
    stop: echo,
    upload: echo,
    download: async () => ({ contentType: 'image/png', data: new Uint8Array([1, 2, 255]) }),
    fail: async ({ id }: { id: string }) => {
      if (id === 'deaf') await state.held.promise
      if (id === 'crash') throw new Error('password of the database is hunter2')
      throw rateLimited()
    },
    async *watch({ id }: { id: string }) {
      try {
        if (id === 'refused') throw new TollgateError('SERVICE_NOT_FOUND', 'there is no such thing')
        yield { id, count: 1 }
        if (id === 'breaks') throw new TollgateError('STORAGE_UNAVAILABLE', 'gone', { retryAfterMs: 500 })
        if (id === 'waits') await state.held.promise
        while (id === 'endless') {
          await new Promise((resolve) => setImmediate(resolve))
          yield { id, displayName: 'x'.repeat(10_000) }
        }
        yield { id, count: 2 }
      } finally {
        state.left += 1
      }
    },
    async *parts() {
      yield { id: 'x', part: { name: 'a' } }
    },
  }
  return {
    service,
    options: { public: true },
    implementation: (name) => (Object.hasOwn(implementation, name) ? Reflect.get(implementation, name) : undefined),
  }
}
