/** What the doctor asks of those that a gate depends on beside its stores: issuers, the policy engine, sinks of events. */
import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { Config } from '../config.ts'
import { fetchTokenKeys } from '../identity/fetch-token-keys.ts'
import { isObject } from '../is-object.ts'
import { statedFacts } from '../policy/policy-message.ts'
import { createRemoteJudge } from '../policy/remote-judge.ts'
import { describeError } from '../storage/postgres.ts'
import type { Finding } from './doctor.ts'
import { failed, ok } from './findings.ts'
import { reachUrl } from './reach.ts'

/** Reads the keys of every issuer, as the gate does when the first token comes. */
export async function lookAtIssuers({ tokens }: Pick<Config, 'tokens'>): Promise<readonly Finding[]> {
  if (tokens === undefined) return [ok('none is trusted')]
  const { issuers, keysUrl, allowHttp } = tokens
  const remedy = 'Check JWT_ISSUER, JWT_JWKS_URL, and the way to the issuer.'
  const look = async (issuer: string): Promise<Finding> => {
    try {
      const { keys } = await fetchTokenKeys({ issuer, keysUrl, allowHttp })
      return keys.length === 0
        ? failed(`${issuer} has no keys that tokens can be checked with`, remedy)
        : ok(`${issuer} answers; keys: ${keys.length}`)
    } catch (error) {
      return failed(`${issuer}: ${describeError(error)}`, remedy)
    }
  }
  return await Promise.all(issuers.map(look))
}

/** Cold, an engine far away may take longer than a call would let it. */
const engineTimeoutMs = 5_000

/** Asks the engine about a service that nobody has, which shows whether it answers, and to this credential. */
export async function lookAtPolicyEngine({ policy }: Pick<Config, 'policy'>): Promise<readonly Finding[]> {
  const { engine } = policy
  if (engine === undefined) return [ok('built in')]
  const judge = createRemoteJudge({
    ...engine,
    timeoutMs: engineTimeoutMs,
    connections: 1,
    failMode: 'closed',
    now: Date.now,
    onAsked: () => {},
    onChange: () => {},
  })
  const facts = statedFacts(undefined, Date.now())
  try {
    await judge.judge('service', { ...facts, service: { ...facts.service, id: 'doctor' } })
    return [ok(`${engine.url} answers`)]
  } catch (error) {
    const why = judge.state().failing ?? describeError(error)
    const remedy =
      'Check POLICY_ENGINE_URL, the way to it, and that POLICY_ENGINE_CREDENTIAL has the role gateway there.'
    return [failed(`${engine.url}: ${why}`, remedy)]
  } finally {
    judge.close()
  }
}

/** Whether the webhook can be reached, without sending it anything, and the file be written. */
export async function lookAtSinks({ events }: Pick<Config, 'events'>): Promise<readonly Finding[]> {
  const { webhook, file } = events.outbox
  const found: Finding[] = []
  if (webhook !== undefined) {
    const { origin } = new URL(webhook.url)
    const remedy = 'Check EVENTS_WEBHOOK_URL, and the way to it.'
    found.push(await attempt(reachUrl(webhook.url), `the webhook at ${origin} can be reached`, remedy))
  }
  if (file !== undefined) {
    const path = resolve(file)
    const remedy = 'Set EVENTS_FILE to a file that this user may write, in a folder that is there.'
    found.push(await attempt(mayWrite(path), `${path} can be written`, remedy))
  }
  return found.length === 0 ? [ok('neither a webhook nor a file is set')] : found
}

async function attempt(work: Promise<void>, well: string, remedy: string): Promise<Finding> {
  try {
    await work
    return ok(well)
  } catch (error) {
    return failed(describeError(error), remedy)
  }
}

/** The gate makes the file, but no folder. */
async function mayWrite(path: string): Promise<void> {
  try {
    await access(path, constants.W_OK)
  } catch (error) {
    if (!isObject(error) || error.code !== 'ENOENT') throw error
    await access(dirname(path), constants.W_OK)
  }
}
