import { expect, test } from 'vitest'
import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import { administrator, invoke, keyOf } from '../../test/support/invoke.ts'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import type { Principal } from '../identity/principal.ts'
import { createEndpointStateHandlers } from './endpoint-state-handlers.ts'
import { buildSnapshot } from './snapshot.ts'

const ours = serviceRecord({ id: 'ours', organizationId: 'o', endpoints: [endpointRecord({ id: 'a' })] })
const theirs = serviceRecord({ id: 'theirs', name: 'b', organizationId: 'p', endpoints: [endpointRecord({ id: 'b' })] })
const snapshot = buildSnapshot({ version: 1, services: [ours, theirs], consumers: [], nowMs: 0 })
const handlers = createEndpointStateHandlers({
  snapshots: { current: () => snapshot },
  serviceOf: async (id) => (id === 'ours' ? ours : theirs),
  standingOf: () => ({ breaker: 'closed', health: undefined, inFlight: 0, latencyMs: undefined, isResting: false }),
  replica: 'r',
})
const publisher: Principal = { ...keyOf({ id: 'c', organizationId: 'o' }), roles: ['publisher'] }

test.each<[string, Principal, string, string[]]>([
  ['everything to an administrator', administrator, '', ['a', 'b']],
  ['what its organization owns to a publisher', publisher, '', ['a']],
  ['nothing of a service of others', publisher, 'theirs', []],
  ['nothing to a consumer', keyOf({ id: 'c', organizationId: 'o' }), '', []],
])('tells %s', async (_, principal, serviceId, expected) => {
  const { listEndpointStates } = Registry.method
  const { endpointStates } = await invoke(listEndpointStates, handlers.listEndpointStates, { serviceId }, principal)
  expect(endpointStates.map(({ endpointId }) => endpointId)).toEqual(expected)
})
