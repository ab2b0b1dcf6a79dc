/** Where a gate is, and the key to ask it with. */
export interface GateAccess {
  readonly origin: string
  readonly key: string
}

/** What an RPC answered: its HTTP status and its body. */
export interface GateAnswer {
  readonly status: number
  readonly body: Record<string, unknown>
}

/** Calls an RPC of the gate in Connect JSON, for example `Registry/GetService`; returns refusals, too. */
export async function askGate({ origin, key }: GateAccess, method: string, request: object): Promise<GateAnswer> {
  const answer = await fetch(`${origin}/marketplace.v1.${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify(request),
    signal: AbortSignal.timeout(10_000),
  })
  return { status: answer.status, body: toObject(await answer.json()) }
}

/** Calls an RPC of the gate in Connect JSON; throws with its answer unless it succeeds. */
export async function callGate(
  origin: string,
  key: string,
  method: string,
  request: object,
): Promise<Record<string, unknown>> {
  const { status, body } = await askGate({ origin, key }, method, request)
  if (status !== 200) throw new Error(`${method} answered ${status}: ${JSON.stringify(body).slice(0, 1_000)}`)
  return body
}

function toObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}
