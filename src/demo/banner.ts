import type { DemoFacts } from './facts.ts'

const question = JSON.stringify({ model: 'practice', messages: [{ role: 'user', content: 'Say hello.' }] })

/** What `tollgate dev` prints: the facts of the demo, and commands to paste that work as they stand. */
export function banner(facts: DemoFacts, file: string): string {
  const payload = Buffer.from(question).toString('base64')
  const call = `'{"serviceId":"${facts.serviceId}","payload":"${payload}"}'`
  const route = 'marketplace.v1.ConsumptionService/RouteRequest'
  const secure = facts.address.startsWith('https:')
  return `
Tollgate listens on ${facts.address}

  demo key      ${facts.key}
  limited key   ${facts.limitedKey}   (basic tier: 10 requests a second)
  service       ${facts.serviceId}   (practice)
  slow service  ${facts.slowServiceId}   (practice-slow: answers after 2 s)
  all of it     ${file}

Call it:

  curl -s ${facts.address}/api/v1/consume/${facts.serviceId} \\
    -H 'authorization: Bearer ${facts.key}' -H 'content-type: application/json' \\
    -d '${question}'

Over gRPC, whose JSON has the payload, the same bytes, in base64:

  npx buf curl ${secure ? '' : '--http2-prior-knowledge '}--protocol grpc -H 'authorization: Bearer ${facts.key}' \\
    -d ${call} \\
    ${facts.address}/${route}

  grpcurl ${secure ? '' : '-plaintext '}-H 'authorization: Bearer ${facts.key}' \\
    -d ${call} \\
    ${facts.grpcAddress} ${route}

See the usage records that calls left:

  curl -s ${facts.address}/marketplace.v1.UsageService/ListUsageRecords \\
    -H 'authorization: Bearer ${facts.key}' -H 'content-type: application/json' -d '{"pageSize":3}'

`
}
