import type { Endpoint } from '../../gen/marketplace/v1/registry_pb.ts'
import { invalid } from './price-message.ts'
import type { EndpointRecord } from './records.ts'

/**
 * The ids of a service's endpoints after an update, in the order of `wanted`. What the gate knows of an endpoint (its breaker,
 * its latency) it knows by the id: an endpoint that is named by its id, or else by its URL, keeps it; one whose URL changed is
 * another backend and gets a new one. Throws INVALID_ARGUMENT for an id that is none of the service's, and for one that is
 * named twice.
 */
export function idsAfterUpdate(
  wanted: readonly Pick<Endpoint, 'id' | 'url'>[],
  known: readonly EndpointRecord[],
  newId: () => string,
): string[] {
  const free = new Map(known.map((endpoint) => [endpoint.id, endpoint]))
  const named = wanted.map(({ id, url }, index) => {
    if (id === '') return undefined
    const endpoint = free.get(id)
    if (endpoint === undefined) {
      const isTwice = known.some((other) => other.id === id)
      const description = isTwice ? 'must be named once' : 'must be that of an endpoint of the service, or empty'
      throw invalid(`service.endpoints[${index}].id`, description, isTwice ? 'unique' : 'exists')
    }
    free.delete(id)
    return endpoint.url === url ? id : newId()
  })
  return wanted.map(({ url }, index) => {
    const id = named[index]
    if (id !== undefined) return id
    const same = [...free.values()].find((endpoint) => endpoint.url === url)
    if (same === undefined) return newId()
    free.delete(same.id)
    return same.id
  })
}
