import { AuditService } from '../../gen/marketplace/v1/audit_pb.ts'
import { ConsumerService } from '../../gen/marketplace/v1/consumers_pb.ts'
import { KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import { LimitService } from '../../gen/marketplace/v1/limits_pb.ts'
import { ProjectService } from '../../gen/marketplace/v1/projects_pb.ts'
import { Registry } from '../../gen/marketplace/v1/registry_pb.ts'
import { UsageService } from '../../gen/marketplace/v1/usage_pb.ts'
import { UserService } from '../../gen/marketplace/v1/users_pb.ts'
import type { CommandRow } from './command-row.ts'

const audit = AuditService.method
const keys = KeyService.method
const consumers = ConsumerService.method
const services = Registry.method
const limits = LimitService.method
const projects = ProjectService.method
const usage = UsageService.method
const users = UserService.method

/** Every command that is one call. Groups and verbs stand in the order in which the help shows them. */
export const commandRows: readonly CommandRow[] = [
  {
    name: 'orgs create',
    summary: 'add an organization',
    method: consumers.createOrganization,
    resource: 'organization',
    positional: ['organization.name'],
  },
  { name: 'orgs get', summary: 'show an organization', method: consumers.getOrganization, positional: ['id'] },
  {
    name: 'orgs list',
    summary: 'list organizations',
    method: consumers.listOrganizations,
    rows: { field: 'organizations', columns: ['id', 'name', 'status', 'clearance', 'homeRegion'] },
  },
  {
    name: 'orgs update',
    summary: 'change an organization; what is not named stays',
    method: consumers.updateOrganization,
    resource: 'organization',
    positional: ['organization.id'],
  },
  {
    name: 'projects create',
    summary: 'add a project to an organization',
    method: projects.createProject,
    resource: 'project',
    positional: ['project.name'],
  },
  { name: 'projects get', summary: 'show a project', method: projects.getProject, positional: ['id'] },
  {
    name: 'projects list',
    summary: 'list projects',
    method: projects.listProjects,
    rows: { field: 'projects', columns: ['id', 'name', 'organizationId', 'status'] },
  },
  {
    name: 'projects update',
    summary: 'change a project; what is not named stays',
    method: projects.updateProject,
    resource: 'project',
    positional: ['project.id'],
  },
  {
    name: 'users create',
    summary: 'add a user, whom an issuer of tokens or certificates vouches for',
    method: users.createUser,
    resource: 'user',
  },
  { name: 'users get', summary: 'show a user', method: users.getUser, positional: ['id'] },
  {
    name: 'users list',
    summary: 'list users',
    method: users.listUsers,
    rows: { field: 'users', columns: ['id', 'issuer', 'subject', 'organizationId', 'status', 'roles'] },
  },
  {
    name: 'users update',
    summary: 'change a user; what is not named stays',
    method: users.updateUser,
    resource: 'user',
    positional: ['user.id'],
  },
  {
    name: 'consumers create',
    summary: 'add a consumer to an organization',
    method: consumers.createConsumer,
    resource: 'consumer',
    positional: ['consumer.name'],
  },
  { name: 'consumers get', summary: 'show a consumer', method: consumers.getConsumer, positional: ['id'] },
  {
    name: 'consumers list',
    summary: 'list consumers',
    method: consumers.listConsumers,
    rows: { field: 'consumers', columns: ['id', 'name', 'organizationId', 'tier', 'status'] },
  },
  {
    name: 'consumers update',
    summary: 'change a consumer; what is not named stays',
    method: consumers.updateConsumer,
    resource: 'consumer',
    positional: ['consumer.id'],
  },
  {
    name: 'keys create',
    summary: 'make an API key; its secret is shown once',
    method: keys.createKey,
    afterword: 'Keep the key now: it cannot be shown again.',
  },
  {
    name: 'keys list',
    summary: 'list the keys of a consumer',
    method: keys.listKeys,
    rows: { field: 'apiKeys', columns: ['id', 'name', 'consumerId', 'createTime', 'expireTime', 'revokeTime'] },
  },
  {
    name: 'keys revoke',
    summary: 'end a key for good',
    method: keys.revokeKey,
    positional: ['key_id'],
    warning: 'Calls with this key are refused from now on, and it cannot be brought back.',
  },
  {
    name: 'services register',
    summary: 'add a service version; endpoints and prices come from --file',
    method: services.registerService,
    resource: 'service',
  },
  { name: 'services get', summary: 'show a service, by id or name', method: services.getService, positional: ['id'] },
  {
    name: 'services list',
    summary: 'list services',
    method: services.listServices,
    rows: { field: 'services', columns: ['id', 'name', 'version', 'status', 'description'] },
  },
  {
    name: 'services add-price',
    summary: 'add a version to the prices of a service, from --file',
    method: services.createPrice,
    resource: 'price',
    positional: ['service_id'],
  },
  {
    name: 'services prices',
    summary: 'list the prices of a service, the latest first',
    method: services.listPrices,
    positional: ['service_id'],
    rows: { field: 'prices', columns: ['version', 'currency', 'effectiveTime', 'perToken', 'perRequest'] },
  },
  {
    name: 'limits set',
    summary: 'set a limit, or replace it',
    method: limits.setLimit,
    resource: 'limit',
  },
  {
    name: 'limits list',
    summary: 'list limits',
    method: limits.listLimits,
    rows: {
      field: 'limits',
      columns: ['scope', 'subjectId', 'serviceId', 'name', 'amount', 'burst', 'currency'],
    },
  },
  {
    name: 'limits delete',
    summary: 'take a limit away',
    method: limits.deleteLimit,
    warning: 'Calls are no longer held by this limit.',
  },
  {
    name: 'usage list',
    summary: 'list usage records, the newest first',
    method: usage.listUsageRecords,
    rows: {
      field: 'usageRecords',
      columns: [
        'startTime',
        'requestId',
        'serviceId',
        'status',
        'usage.inputTokens',
        'usage.outputTokens',
        'durationMs',
      ],
    },
  },
  {
    name: 'usage stats',
    summary: 'sum up the usage of a service by a consumer',
    method: usage.getUsageStats,
    positional: ['service_id'],
  },
  {
    name: 'usage correct',
    summary: 'take a usage record back and book it anew',
    method: usage.correctUsageRecord,
    positional: ['record_id'],
    warning: 'The ledger is changed for good: a reversal and a rebooking are added.',
  },
  {
    name: 'audit list',
    summary: 'list what was changed and who was refused, the newest first',
    method: audit.listAuditRecords,
    rows: { field: 'records', columns: ['time', 'kind', 'action', 'actor', 'resource', 'reason', 'count'] },
  },
]
