/**
 * What is worked out once for all calls of a consumer with a key to a service. Asked by three ids one after the other: a text
 * made of all three would have to be made, hashed and compared for each call. At `ceiling` entries all are forgotten, and those
 * in use are soon there again.
 */
export class KnownCalls<V> {
  readonly #ceiling: number
  #consumers = new Map<string, Map<string, Map<string, V>>>()
  #count = 0

  constructor(ceiling: number) {
    this.#ceiling = ceiling
  }

  get(consumerId: string, serviceId: string, keyId: string): V | undefined {
    return this.#consumers.get(consumerId)?.get(serviceId)?.get(keyId)
  }

  set(consumerId: string, serviceId: string, keyId: string, value: V): void {
    if (this.get(consumerId, serviceId, keyId) === undefined) this.#makeRoom()
    const services = this.#consumers.get(consumerId) ?? new Map<string, Map<string, V>>()
    const keys = services.get(serviceId) ?? new Map<string, V>()
    this.#consumers.set(consumerId, services.set(serviceId, keys.set(keyId, value)))
  }

  #makeRoom(): void {
    if (this.#count >= this.#ceiling) {
      this.#consumers = new Map()
      this.#count = 0
    }
    this.#count += 1
  }
}
