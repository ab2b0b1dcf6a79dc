import { once } from 'node:events'
import { access } from 'node:fs/promises'
import { createServer, type Http2Server, type ServerHttp2Session } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { PolicyDecisionSchema, PolicyEngine } from '../../gen/marketplace/v1/policy_pb.ts'
import { startTokenIssuer } from '../../test/support/token-issuer.ts'
import { loadConfig } from '../config.ts'
import { lookAtIssuers, lookAtPolicyEngine, lookAtSinks } from './doctor-outside.ts'

/** Nobody listens there. */
const nowhere = 'http://127.0.0.1:1'

describe('token issuers', () => {
  const settings = (issuer: string) => loadConfig({ JWT_ISSUER: issuer, JWT_AUDIENCE: 'gate' }, 'serve')

  test('says how many keys an issuer has', async () => {
    const issuer = await startTokenIssuer()
    try {
      expect(await lookAtIssuers(settings(issuer.issuer))).toEqual([
        { status: 'ok', detail: `${issuer.issuer} answers; keys: 1` },
      ])
      issuer.answerWith({ body: JSON.stringify({ issuer: 'https://other.example' }) })
      expect(await lookAtIssuers(settings(issuer.issuer))).toMatchObject([
        { status: 'failed', detail: expect.stringContaining('another issuer') },
      ])
    } finally {
      await issuer.close()
    }
  })

  test('fails on each that cannot be read, and names the setting', async () => {
    const found = await lookAtIssuers(settings(`${nowhere}/a,${nowhere}/b`))
    expect(found).toMatchObject([
      { status: 'failed', detail: expect.stringContaining(`${nowhere}/a`) },
      { status: 'failed', remedy: expect.stringContaining('JWT_ISSUER') },
    ])
  })
})

describe('the policy engine', () => {
  const credential = 'a-credential-for-tests'
  const sessions = new Set<ServerHttp2Session>()
  let engine: Http2Server
  let url: string

  beforeEach(async () => {
    engine = createServer(
      connectNodeAdapter({
        routes: (router) => {
          router.service(PolicyEngine, {
            validateService(_, { requestHeader }) {
              const isKnown = requestHeader.get('authorization') === `Bearer ${credential}`
              if (!isKnown) throw new ConnectError('no', Code.PermissionDenied)
              return create(PolicyDecisionSchema, { allowed: false })
            },
          })
        },
      }),
    )
    engine.on('session', (session) => sessions.add(session.once('close', () => sessions.delete(session))))
    engine.listen(0, '127.0.0.1')
    await once(engine, 'listening')
    const { port } = engine.address() as AddressInfo
    url = `http://127.0.0.1:${port}`
  })

  afterEach(async () => {
    const ended = new Promise((resolve) => engine.close(resolve))
    for (const session of sessions) session.destroy()
    await ended
  })

  const settings = (of: string, key: string) =>
    loadConfig({ POLICY_ENGINE_URL: of, POLICY_ENGINE_CREDENTIAL: key }, 'serve')

  test('answers, whatever it decides', async () => {
    expect(await lookAtPolicyEngine(settings(url, credential))).toEqual([{ status: 'ok', detail: `${url} answers` }])
  })

  test('fails when it does not let this credential ask, or is not there, without telling the credential', async () => {
    const refused = await lookAtPolicyEngine(settings(url, 'another-credential-for-tests'))
    const absent = await lookAtPolicyEngine(settings(nowhere, credential))
    expect(refused).toMatchObject([{ status: 'failed', detail: `${url}: gRPC status PermissionDenied` }])
    expect(absent).toMatchObject([{ status: 'failed', remedy: expect.stringContaining('POLICY_ENGINE_URL') }])
    expect(JSON.stringify([refused, absent])).not.toContain('credential-for-tests')
  })
})

describe('sinks of events', () => {
  const secret = `whsec_${Buffer.alloc(32).toString('base64')}`

  test('fails on a webhook that nobody listens at, without telling its path', async () => {
    const config = loadConfig({ EVENTS_WEBHOOK_URL: `${nowhere}/never-shown`, EVENTS_WEBHOOK_SECRET: secret }, 'serve')
    const found = await lookAtSinks(config)
    expect(found).toMatchObject([{ status: 'failed', remedy: expect.stringContaining('EVENTS_WEBHOOK_URL') }])
    expect(JSON.stringify(found)).not.toContain('never-shown')
  })

  test('wants the folder of the file, which the gate does not make, and does not make the file', async () => {
    const path = join(import.meta.dirname, 'absent.jsonl')
    const look = (file: string) => lookAtSinks(loadConfig({ EVENTS_FILE: file }, 'serve'))
    expect(await look(path)).toEqual([{ status: 'ok', detail: `${path} can be written` }])
    await expect(access(path)).rejects.toMatchObject({ code: 'ENOENT' })
    expect(await look(join(path, 'events.jsonl'))).toMatchObject([{ status: 'failed' }])
  })
})
