-- The platform's tables, as a load makes them, for tests of the examples alone.
create schema if not exists lake.traitmesh;

create or replace temp table raw as
select *
from read_json(
    getvariable('files'),
    format = 'newline_delimited',
    ignore_errors = true,
    columns = {
        event_id: 'VARCHAR', app_id: 'VARCHAR', platform: 'VARCHAR', event_name: 'VARCHAR',
        user_id: 'VARCHAR', domain_userid: 'VARCHAR', network_userid: 'VARCHAR',
        domain_sessionid: 'VARCHAR', geo_country: 'VARCHAR', geo_region: 'VARCHAR',
        geo_region_name: 'VARCHAR', geo_city: 'VARCHAR', geo_timezone: 'VARCHAR',
        os_timezone: 'VARCHAR', useragent: 'VARCHAR', user_ipaddress: 'VARCHAR',
        se_category: 'VARCHAR', se_action: 'VARCHAR', se_label: 'VARCHAR', se_property: 'VARCHAR',
        se_value: 'DOUBLE', geo_latitude: 'DOUBLE', geo_longitude: 'DOUBLE',
        collector_tstamp: 'VARCHAR', dvce_sent_tstamp: 'VARCHAR', derived_tstamp: 'VARCHAR',
        etl_tstamp: 'VARCHAR',
        unstruct_event_com_tusk_app_open_1: 'JSON',
        unstruct_event_com_tusk_level_up_1: 'JSON',
        unstruct_event_com_tusk_tournament_join_1: 'JSON',
        contexts_com_tusk_player_context_1: 'JSON',
        contexts_com_snowplowanalytics_snowplow_mobile_context_1: 'JSON'
    }
);

create or replace table lake.traitmesh.events as
with resolved as (
    select distinct on (event_id)
        * replace (coalesce(user_id, domain_userid, network_userid) as user_id),
        coalesce(se_category, event_name) as name,
        try_cast(derived_tstamp as timestamp) as time
    from raw
)
select
    event_id,
    name,
    cast(dense_rank() over (order by user_id) - 1 as uinteger) as user_ord,
    user_id,
    time,
    app_id, platform, event_name, domain_userid, network_userid, domain_sessionid,
    geo_country, geo_region, geo_region_name, geo_city, geo_timezone, os_timezone,
    useragent, user_ipaddress, se_category, se_action, se_label, se_property, se_value,
    geo_latitude, geo_longitude,
    cast(collector_tstamp as timestamp) as collector_tstamp,
    cast(null as timestamp) as dvce_created_tstamp,
    cast(dvce_sent_tstamp as timestamp) as dvce_sent_tstamp,
    cast(derived_tstamp as timestamp) as derived_tstamp,
    cast(etl_tstamp as timestamp) as etl_tstamp,
    case event_name
        when 'app_open'
            then json_object('com_tusk_app_open_1', unstruct_event_com_tusk_app_open_1)
        when 'level_up'
            then json_object('com_tusk_level_up_1', unstruct_event_com_tusk_level_up_1)
        when 'tournament_join'
            then json_object(
                'com_tusk_tournament_join_1', unstruct_event_com_tusk_tournament_join_1
            )
    end as unstruct_event,
    json_object(
        'com_tusk_player_context_1', contexts_com_tusk_player_context_1,
        'com_snowplowanalytics_snowplow_mobile_context_1',
        contexts_com_snowplowanalytics_snowplow_mobile_context_1
    ) as contexts,
    cast(1 as bigint) as load
from resolved
where user_id is not null and time < '2100-01-01'
order by name, user_ord, time;

create or replace table lake.traitmesh.users as
select user_id, user_ord, min(time) as first_seen
from lake.traitmesh.events
group by user_id, user_ord;
