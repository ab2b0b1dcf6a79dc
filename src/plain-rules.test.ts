import {
  create,
  type DescFile,
  type DescMessage,
  fromJson,
  getOption,
  type MessageInitShape,
  toJsonString,
} from '@bufbuild/protobuf'
import { createValidator } from '@bufbuild/protovalidate'
import { FieldRulesSchema, field as rules } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js'
import { expect, test } from 'vitest'
import { CreateConsumerRequestSchema, file_marketplace_v1_consumers } from '../gen/marketplace/v1/consumers_pb.ts'
import { file_marketplace_v1_consumption, RouteRequestRequestSchema } from '../gen/marketplace/v1/consumption_pb.ts'
import { file_marketplace_v1_keys } from '../gen/marketplace/v1/keys_pb.ts'
import {
  file_marketplace_v1_limits,
  ListLimitsRequestSchema,
  SetLimitRequestSchema,
} from '../gen/marketplace/v1/limits_pb.ts'
import { file_marketplace_v1_policy } from '../gen/marketplace/v1/policy_pb.ts'
import { file_marketplace_v1_projects } from '../gen/marketplace/v1/projects_pb.ts'
import {
  file_marketplace_v1_registry,
  RegisterServiceRequestSchema,
  type ServiceSchema,
} from '../gen/marketplace/v1/registry_pb.ts'
import { CorrectUsageRecordRequestSchema, file_marketplace_v1_usage } from '../gen/marketplace/v1/usage_pb.ts'
import { file_marketplace_v1_users } from '../gen/marketplace/v1/users_pb.ts'
import { plainViolation } from './plain-rules.ts'

const validator = createValidator()

/** "<field>: <what is wrong>" of each broken rule. */
function broken<M extends DescMessage>(schema: M, init: MessageInitShape<M>): string[] {
  const { violations = [] } = validator.validate(schema, create(schema, init))
  return violations.map(plainViolation).map(({ field, description }) => `${field}: ${description}`)
}

const tooLong = { seconds: 4_000n, nanos: 0 }

test('each broken rule is said in plain words, with the limit or what would be right', () => {
  expect(broken(RegisterServiceRequestSchema, {})).toEqual(['service: must be given'])
  const endpoint = { url: 'ftp://a', credentialRef: 'secret', weight: 2_000, timeout: tooLong }
  const service: MessageInitShape<typeof ServiceSchema> = {
    name: 'A b',
    version: 'one',
    description: 'x'.repeat(5_000),
    defaultMaxOutputTokens: -1n,
    endpoints: [endpoint],
    pricing: { currency: 'euro', effectiveTime: { seconds: 99_999_999_999n, nanos: 0 } },
  }
  expect(broken(RegisterServiceRequestSchema, { service })).toEqual([
    expect.stringMatching(/^service\.name: must be lower-case letters .* such as gpt-small$/),
    expect.stringMatching(/^service\.version: must be a semantic version, such as 1\.0\.0/),
    'service.description: must have at most 4096 characters',
    expect.stringMatching(/^service\.endpoints\[0\]\.url: must be an absolute http or https URL .* such as https:/),
    expect.stringMatching(/^service\.endpoints\[0\]\.credential_ref: must be env:NAME or file:\/path/),
    'service.endpoints[0].timeout: must be longer than 0s and at most 3600s',
    'service.endpoints[0].weight: must be 0 to 1000',
    'service.pricing.currency: must be an ISO 4217 code, such as USD',
    'service.pricing.effective_time: must be before 3000-01-01T00:00:00Z',
    'service.default_max_output_tokens: must be 0 to 10000000',
  ])
  const consumer = { organizationId: 'x', name: '', grantedServices: ['a', 'a'] }
  expect(broken(CreateConsumerRequestSchema, { consumer })).toEqual([
    expect.stringMatching(/^consumer\.organization_id: must be a UUID, such as [0-9a-f-]{36}$/),
    'consumer.name: must not be empty',
    'consumer.granted_services: must not have the same entry twice',
    expect.stringMatching(/^consumer\.granted_services\[0\]: must be the id of a service, or "\*" for all of them$/),
    expect.stringMatching(/^consumer\.granted_services\[1\]: /),
  ])
  expect(broken(SetLimitRequestSchema, { limit: { subjectId: 'x' } })).toEqual([
    expect.stringMatching(/^limit\.scope: must be one of LIMIT_SCOPE_ORGANIZATION, /),
    expect.stringMatching(/^limit\.name: must be one of LIMIT_NAME_REQUESTS_PER_SECOND, /),
  ])
  expect(broken(ListLimitsRequestSchema, { pageSize: 2_000 })).toEqual(['page_size: must be 0 to 1000'])
  expect(broken(ListLimitsRequestSchema, fromJson(ListLimitsRequestSchema, { scope: 9 }))).toEqual([
    expect.stringMatching(/^scope: must be one of LIMIT_SCOPE_ORGANIZATION, .*LIMIT_SCOPE_SERVICE_CONSUMER$/),
  ])
  expect(broken(CorrectUsageRecordRequestSchema, { recordId: 'x', requestId: 'x', reason: 'r', usage: {} })).toEqual([
    expect.stringMatching(/^record_id: must be a UUID in lower case, such as /),
    expect.stringMatching(/^request_id: must be a UUID in lower case, such as /),
  ])
})

test('a label is told apart from its name', () => {
  const metadata = { ['k'.repeat(65)]: 'x', k: 'x'.repeat(300), '': '' }
  expect(broken(RouteRequestRequestSchema, { serviceId: 's', metadata })).toEqual([
    `metadata["${'k'.repeat(65)}"]: the name must have at most 64 characters`,
    'metadata["k"]: must have at most 256 characters',
    'metadata[""]: the name must not be empty',
  ])
  const many = Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`${index}`, '']))
  expect(broken(RouteRequestRequestSchema, { serviceId: 's', metadata: many })).toEqual([
    'metadata: must have at most 16 entries',
  ])
})

test('no rule of the contract is a bare pattern, which says nothing to people', () => {
  const files: readonly DescFile[] = [
    ...[file_marketplace_v1_consumers, file_marketplace_v1_consumption, file_marketplace_v1_keys],
    ...[
      file_marketplace_v1_limits,
      file_marketplace_v1_policy,
      file_marketplace_v1_projects,
      file_marketplace_v1_registry,
      file_marketplace_v1_usage,
      file_marketplace_v1_users,
    ],
  ]
  const messages = files.flatMap((file) => file.messages.flatMap((message) => [message, ...message.nestedMessages]))
  const fields = messages.flatMap((message) => message.fields)
  const bare = fields.filter((each) => toJsonString(FieldRulesSchema, getOption(each, rules)).includes('"pattern"'))
  expect(fields.length).toBeGreaterThan(100)
  expect(bare.map(String)).toEqual([])
})
