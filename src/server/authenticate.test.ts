import { Code, ConnectError } from '@connectrpc/connect'
import { expect, test } from 'vitest'
import { RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'
import { createCredentialGuard } from '../identity/credential-guard.ts'
import { as, clientOf, keys, startFixture, wireNames } from './fixture.ts'

test.each(wireNames)(
  'beyond an address’s share of wrong credentials only known ones are served, over %s',
  async (wire) => {
    const isKnown = (credential: string) => credential === keys.own
    const credentialGuard = createCredentialGuard({ perMinute: 3, isKnown, clock: () => 0 })
    const fixture = await startFixture({ credentialGuard })
    const client = clientOf(fixture, wire)
    const refusedWith = async (key: string): Promise<ConnectError> =>
      ConnectError.from(await client.checkQuota({ serviceId: 's' }, as(key)).catch((error: unknown) => error))

    for (let i = 0; i < 3; i++) expect((await refusedWith('tg_wrong')).code).toBe(Code.Unauthenticated)
    // Not even one that is right: nobody looks.
    const refusal = await refusedWith(keys.noRoles)
    expect(refusal.code).toBe(Code.ResourceExhausted)
    expect(refusal.findDetails(RetryInfoSchema)).toMatchObject([{ retryDelay: { seconds: 20n } }])
    await client.checkQuota({ serviceId: 's' }, as(keys.own))
    const http = await fetch(`${fixture.server.address}/v1/models`, as('tg_wrong'))
    expect([http.status, http.headers.get('retry-after-ms')]).toEqual([429, '20000'])
    await fixture.close()
  },
)
